"""Files of Keras 2: made by tf_keras, read as Keras 3, with the same outputs."""

import json
import re
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

from tas_tf.description import describe
from tas_tf.errors import UserError
from tas_tf.graph.graph import Graph
from tas_tf.graph.kinds import Kind
from tas_tf.zoo.keras2 import compare, convert
from tas_tf.zoo.loading import load_file, load_network
from tests.parts import slow_except
from tests.zoo.hostile import object_of, rewrite

# tf_keras says so of every HDF5 file, and of functions given as activations.
pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning")


def classify(x):
    return layers.Dense(4, activation="softmax", name="scores")(layers.GlobalAveragePooling2D()(x))


def separable(x, name):
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name=f"{name}_depthwise")(x)
    return layers.ReLU(6.0, name=f"{name}_relu")(layers.BatchNormalization(name=f"{name}_bn")(x))


def mobile():
    images = tf_keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", name="stem")(images)
    return tf_keras.Model(images, layers.Conv2D(6, 1, name="point")(separable(x, "a")), name="mobile")


def plain():
    base = mobile()
    return tf_keras.Model(base.input, classify(base.output), name="plain")


def arithmetic():
    """Operators become `TFOpLambda` layers, as in MobileNetV3 and in functions for preprocessing."""
    images = tf_keras.Input((8, 8, 3))
    x = tf_keras.applications.mobilenet_v2.preprocess_input(images)
    x = layers.Conv2D(8, 3, name="stem")(x)
    x = layers.Multiply(name="multiply")([x, tf.nn.relu6(x + 3.0) / 6.0])
    gate = layers.Conv2D(8, 1, name="gate")(tf.reduce_mean(x, axis=[1, 2], keepdims=True))
    return tf_keras.Model(images, classify(tf.nn.swish(x * gate - 0.5)), name="arithmetic")


def caffe():
    """Turned colours and means of each: the preprocessing of ResNet50 and VGG16."""
    images = tf_keras.Input((8, 8, 3))
    x = tf_keras.applications.resnet50.preprocess_input(images)
    return tf_keras.Model(images, classify(layers.Conv2D(8, 3, name="conv1/conv")(x)), name="caffe")


def teachable_machine():
    """Sequential models of models, as in `keras_model.h5`."""
    body = tf_keras.Sequential([mobile(), layers.GlobalAveragePooling2D()])
    head = tf_keras.Sequential(
        [layers.Dense(10, activation="relu", input_shape=(6,)), layers.Dense(3, activation="softmax", use_bias=False)]
    )
    return tf_keras.Sequential([body, head])


def frozen_base():
    """Transfer learning as in TensorFlow's tutorial."""
    base = mobile()
    base.trainable = False
    images = tf_keras.Input((8, 8, 3))
    x = tf_keras.Sequential([layers.RandomFlip("horizontal"), layers.RandomRotation(0.2)])(images)
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(base(layers.Rescaling(1 / 255)(x), training=False)))
    return tf_keras.Model(images, layers.Dense(3)(x), name="transfer")


OLD = {made.__name__: made for made in (plain, arithmetic, caffe, teachable_machine, frozen_base)}


def randomized(model):
    random = np.random.default_rng(0)
    model.set_weights([random.uniform(0.1, 0.5, weight.shape).astype(weight.dtype) for weight in model.get_weights()])
    return model


def images_of(model):
    return np.random.default_rng(1).uniform(0, 255, (4, *model.input_shape[1:])).astype("float32")


@pytest.mark.parametrize(
    ("name", "suffix"),
    # tf_keras can't write colours in reverse order, `x[..., ::-1]`, into its `.keras` files.
    slow_except(
        [(name, suffix) for name in OLD for suffix in (".h5", ".keras") if (name, suffix) != ("caffe", ".keras")],
        [("arithmetic", ".keras"), ("caffe", ".h5"), ("teachable_machine", ".h5"), ("frozen_base", ".keras")],
    ),
)
def test_old_files_are_converted(name, suffix, tmp_path):
    old, said = randomized(OLD[name]()), []
    path = tmp_path / f"mine{suffix}"
    old.save(path)
    model = load_file(path, say=said.append)
    assert isinstance(model, keras.Model)
    images = images_of(old)
    expected = old(images, training=False)  # Keras 3 augments images unless it is told not to
    np.testing.assert_allclose(model(images, training=False), expected, rtol=1e-4, atol=1e-5)
    (line,) = said
    assert f"{path} is a file of Keras 2" in line
    assert re.search(r"outputs on random images (are the same|differ by at most \de-\d+ of the largest)\.$", line)
    assert describe(model).units
    model.save(tmp_path / "new.keras")
    again = load_file(tmp_path / "new.keras", say=said.append)
    np.testing.assert_array_equal(again(images, training=False), model(images, training=False))
    assert len(said) == 1


def test_what_operations_do_to_channels_is_known():
    graph = Graph.from_model(convert(arithmetic()))
    assert not [node.name for node in graph if node.kind is Kind.OPAQUE]
    assert any(name.startswith("tf_nn_relu6") for name in graph.by_name)


def test_keras_3_reads_by_itself_what_it_can(tmp_path):
    images = tf_keras.Input((8, 8, 3))
    old = tf_keras.Model(images, classify(layers.Conv2D(8, 3)(images)), name="simple")
    old.save(tmp_path / "mine.h5")
    model = load_file(tmp_path / "mine.h5", say=pytest.fail)
    np.testing.assert_allclose(model(images_of(old)), old(images_of(old)), atol=1e-5)


def test_files_of_early_versions(tmp_path):
    """They call functional models `Model`, and don't say the backend."""
    old, path = randomized(plain()), tmp_path / "keras_model.h5"
    old.save(path)
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        file.attrs["model_config"] = json.dumps({**config, "class_name": "Model"}).encode()
        file.attrs["keras_version"] = b"2.2.4-tf"
    said = []
    model = load_file(path, say=said.append)
    assert "a file of Keras 2.2.4-tf" in said[0]
    np.testing.assert_allclose(model(images_of(old)), old(images_of(old)), rtol=1e-4)


LAYERS = {
    "LeakyReLU": lambda x: layers.LeakyReLU(0.2)(x),
    "PReLU": lambda x: layers.PReLU(shared_axes=[1, 2])(x),
    "ThresholdedReLU": lambda x: layers.ThresholdedReLU(0.3)(x),
    "SeparableConv2D": lambda x: layers.SeparableConv2D(5, 3, kernel_regularizer="l2")(x),
    "Conv2DTranspose": lambda x: layers.Conv2DTranspose(5, 3, strides=2)(x),
    "LayerNormalization": lambda x: layers.LayerNormalization()(x),
    "UpSampling2D": lambda x: layers.UpSampling2D(2, interpolation="bilinear")(x),
    "a function as activation": lambda x: layers.Conv2D(4, 3, activation=tf.nn.relu6)(x),
    "mixed precision": lambda x: layers.Conv2D(4, 3, dtype="mixed_float16")(x),
    "a layer called twice": lambda x: (twice := layers.Conv2D(8, 1))(twice(x)),
    "constants": lambda x: 1.0 - x * tf.constant([1.0] * 7 + [2.0]),
    "pad": lambda x: tf.pad(x, [[0, 0], [1, 1], [2, 0], [0, 0]]),
    "resize": lambda x: tf.image.resize(x, (11, 5)),
    "reshape": lambda x: tf.transpose(tf.reshape(x, (-1, 16, 4, 8)), (0, 2, 1, 3)),
    "concat": lambda x: tf.concat([x, tf.square(x), tf.nn.leaky_relu(x)], -1),
    "slices": lambda x: x[:, ::2, 1:, :5],
    "clip": lambda x: tf.clip_by_value(tf.maximum(x, tf.abs(x - 1.0)), 0.1, 0.8),
    "swish": lambda x: tf.nn.swish(x) + tf.sigmoid(x),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.filterwarnings("ignore:.*float16")
def test_layers_and_operations(name):
    images = tf_keras.Input((8, 8, 3))
    old = randomized(tf_keras.Model(images, classify(LAYERS[name](layers.Conv2D(8, 1)(images)))))
    assert compare(old, convert(old)) < 1e-3


class Mine(layers.Layer):
    def call(self, images):
        return images


class Subclassed(tf_keras.Model):
    def call(self, images):
        return images


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: Mine()(x), "class Mine, which Keras 3 doesn't have"),
        (lambda x: layers.LocallyConnected2D(4, 3, name="local")(x), "`local` is of the class LocallyConnected2D"),
        (lambda x: tf.roll(x, 1, 1), r"`tf.roll\w*` .* Keras 3 has none like roll"),
        (lambda x: tf.image.resize(x, (4, 4), preserve_aspect_ratio=True), r"`tf.image.resize\w*` .* aspect ratio"),
        (lambda x: Subclassed(name="inner")(x), "`inner`"),
    ],
)
def test_what_keras_3_lacks_is_named(make, message):
    images = tf_keras.Input((8, 8, 3))
    with pytest.raises(UserError, match=message + r"[\s\S]*model.save"):
        convert(tf_keras.Model(images, classify(make(images))))


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("class_name", ["TFOpLambda", "SlicingOpLambda"])
@pytest.mark.parametrize("function", ["io.write_file", "compat.v1.io.write_file", "io.gfile.rmtree", None])
def test_no_other_function_runs(tmp_path, suffix, class_name, function):
    """tf_keras calls functions with constant arguments as soon as it reads them."""
    path, target = tmp_path / f"mine{suffix}", tmp_path / "folder"
    plain().save(path)
    if function == "io.gfile.rmtree":
        target.mkdir()

    def add_call(config):
        call = ["_CONSTANT_VALUE", -1, str(target), {} if target.exists() else {"contents": "text"}]
        layer = {"name": "write", "trainable": True, "dtype": "float32", **({"function": function} if function else {})}
        made = object_of(class_name, layer, "tf_keras.src.layers.core.tf_op_layer")
        config["config"]["layers"].insert(1, {**made, "name": "write", "inbound_nodes": [call]})

    rewrite(path, add_call)
    before = target.exists()
    with pytest.raises(UserError, match=rf"`write` .{class_name}.*Keras 3 has none like {function}"):
        load_file(path)
    assert target.exists() == before


def test_own_layers_in_old_files_are_named(tmp_path):
    images = tf_keras.Input((8, 8, 3))
    tf_keras.Model(images, classify(separable(Mine(name="own")(images), "a"))).save(tmp_path / "mine.h5")
    with pytest.raises(UserError, match=r"a file of Keras 2.*layer `own` needs the class Mine.*Build the network"):
        load_file(tmp_path / "mine.h5")


def test_different_outputs_are_refused():
    old = randomized(plain())
    model = convert(old)
    model.get_layer("scores").kernel.assign(model.get_layer("scores").kernel[::-1])
    with pytest.raises(UserError, match="plain makes outputs that differ by"):
        compare(old, model)


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.usefixtures("own_layers")
def test_code_in_old_files_runs_only_on_request(suffix, tmp_path):
    images = tf_keras.Input((8, 8, 3))
    old = tf_keras.Model(images, classify(separable(layers.Lambda(lambda x: x * 2, name="code")(images), "a")))
    path = tmp_path / f"mine{suffix}"
    old.save(path)
    with pytest.raises(UserError, match=r"Lambda layers .code.*`unsafe_load`"):
        load_network(str(path))
    said = []
    model = load_network(str(path), unsafe_load=True, say=said.append)
    assert "can do whatever you can do" in said[0]
    np.testing.assert_allclose(model(images_of(old)), old(images_of(old)), rtol=1e-4)


def test_damaged_old_files_are_refused(tmp_path):
    path = tmp_path / "mine.keras"
    plain().save(path)
    with zipfile.ZipFile(path) as archive:
        kept = {name: archive.read(name) for name in ("config.json", "metadata.json")}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in kept.items():
            archive.writestr(name, content)
    with pytest.raises(UserError, match=r"a file of Keras 2.* can't be read"):
        load_file(path)

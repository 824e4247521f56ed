"""What files of networks name, and nothing else, may be used."""

import json

import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

from tas_tf.zoo.trusted import find_old_stranger, find_stranger

USED = {
    "activations": lambda: layers.Dense(4, activation=layers.LeakyReLU(0.2)),
    "functions": lambda: layers.Conv2D(4, 3, activation=tf_keras.activations.swish),
    "initialisers": lambda: layers.Dense(
        4, kernel_initializer="he_normal", bias_initializer=tf.initializers.Constant(0)
    ),
    "regularisers": lambda: layers.DepthwiseConv2D(3, depthwise_regularizer="l2", depthwise_constraint="max_norm"),
    "policies": lambda: layers.Conv2D(4, 3, dtype=tf_keras.mixed_precision.Policy("mixed_bfloat16")),
    "wrappers": lambda: layers.Bidirectional(layers.LSTM(3)),
    "images": lambda: layers.Resizing(8, 8),
    "rescaling": lambda: layers.Rescaling(1 / 255),
    "means": lambda: layers.Normalization(mean=1.0, variance=2.0),
    "compiled": lambda: compiled(),
}


def compiled():
    model = tf_keras.Sequential([layers.Dense(3, input_shape=(4,))])
    schedule = tf_keras.optimizers.schedules.CosineDecay(0.1, 10)
    loss = tf_keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(tf_keras.optimizers.SGD(schedule), loss, metrics=[tf_keras.metrics.CategoricalAccuracy()])
    return model


def old_stranger(config, registered=None):
    return find_old_stranger(json.loads(json.dumps(config)), registered=registered or {}, unsafe_load=False)


@pytest.mark.parametrize("name", USED)
@pytest.mark.filterwarnings("ignore:The `keras.initializers.serialize:UserWarning")
def test_parts_of_networks_of_keras_2_are_known(name):
    config = tf_keras.saving.serialize_keras_object(USED[name]())
    assert old_stranger({"class_name": "Sequential", "config": {"layers": [config]}}) is None


@pytest.mark.parametrize(
    ("change", "stranger"),
    [
        ({"module": "os"}, ("mine", "class", "Dense")),
        ({"class_name": None}, ("mine", "class", "None")),
        ({"class_name": ["Dense"]}, ("mine", "class", "['Dense']")),
        ({"registered_name": "os"}, ("mine", "class", "os")),
        ({"class_name": "function", "config": "deserialize"}, ("model", "function", "deserialize")),
        ({"class_name": "function", "config": "relu", "registered_name": "system"}, ("model", "function", "system")),
        ({"class_name": "TypeSpec", "type_spec": "tf.TensorSpec"}, ("mine", "class", "TypeSpec")),
    ],
)
def test_other_names_in_files_of_keras_2_are_found(change, stranger):
    config = tf_keras.saving.serialize_keras_object(layers.Dense(3, name="mine"))
    assert old_stranger(config) is None
    assert old_stranger({**config, **change}) == stranger


def test_names_of_activations_are_checked():
    config = tf_keras.saving.serialize_keras_object(layers.Dense(3, name="mine"))
    config["config"]["activation"] = "deserialize"
    assert old_stranger(config) == ("mine", "function", "deserialize")


def test_registered_classes_of_keras_2_are_known_by_their_registered_names():
    config = {"module": "my_layers", "class_name": "Own", "registered_name": "mine>Own", "config": {"name": "own"}}
    assert old_stranger(config) == ("own", "class", "Own")
    assert old_stranger(config, {"mine>Own": object}) is None
    assert old_stranger({**config, "registered_name": "other"}, {"Own": object}) == ("own", "class", "Own")


def test_modules_outside_keras_are_left_to_keras_3():
    config = {"module": "my_layers", "class_name": "Own", "registered_name": "mine>Own", "config": {"name": "own"}}
    assert find_stranger(config) is None
    assert find_stranger({**config, "module": "keras.callbacks"}) == ("own", "class", "Own")

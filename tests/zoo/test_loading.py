import inspect
import json
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tf_keras

from tas_tf.errors import UserError
from tas_tf.graph.graph import Graph
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.zoo.loading import in_precision, load_file, load_network


def test_by_name_takes_size_channels_and_classes():
    model = load_network("resnet14", num_classes=7, image_size=24, channels=1)
    assert (model.name, model.input_shape, model.output_shape) == ("resnet14", (None, 24, 24, 1), (None, 7))


@pytest.mark.parametrize("name", ["MobileNet", "keras.applications.MobileNet"])
def test_applications(name):
    model = load_network(name, num_classes=4, image_size=32)
    assert (model.input_shape, model.output_shape) == ((None, 32, 32, 3), (None, 4))


def test_a_file_comes_back_with_its_weights(tmp_path):
    model = load_network("resnet8", image_size=8)
    model.save(tmp_path / "model.keras")
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    loaded = load_network(str(tmp_path / "model.keras"))
    np.testing.assert_array_equal(loaded(images), model(images))


@pytest.mark.parametrize("name", ["resnet8", "keras.applications.MobileNetV3Small"])
def test_a_networks_precision_changes_as_a_whole(name):
    """The second network has functional arithmetic, which has no policy."""
    model = load_network(name, image_size=32)
    images = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype("float32")
    before = np.array(model(images))
    mixed = in_precision(model, "mixed_bfloat16")
    own = [layer for layer in mixed.layers if isinstance(layer, keras.layers.Layer)][1:]
    assert {layer.dtype_policy.name for layer in own} == {"mixed_bfloat16"}
    assert [layer.name for layer in mixed.layers][1:] == [layer.name for layer in model.layers][1:]
    after = keras.ops.convert_to_numpy(keras.ops.cast(mixed(images), "float32"))
    assert 0 < np.abs(after - before).max() < 0.1 * np.abs(before).max()
    np.testing.assert_array_equal(model(images), before)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet21", "no network 'resnet21'.*resnet2?"),
        ("keras.applications.MobileNetV", "keras.applications.MobileNet"),
        ("keras.applications.VGG16", "8x8x3.*at least 32x32"),
        ("nowhere/model.keras", "no file nowhere/model.keras"),
    ],
)
def test_what_does_not_exist_is_refused(name, message):
    with pytest.raises(UserError, match=message):
        load_network(name, image_size=8)


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="damaged"):
        load_network(str(path))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("metadata.json", "{}")
    with pytest.raises(UserError, match="can't be loaded as a Keras 3 model"):
        load_network(str(path))


def classifier(*inner, name=None):
    images = keras.Input((6, 6, 3))
    x = images
    for layer in inner:
        x = layer(x)
    return keras.Model(images, keras.layers.Dense(2)(keras.layers.Flatten()(x)), name=name)


@pytest.mark.parametrize(
    ("file", "given", "name"),
    [
        ("mine.keras", None, "mine"),
        ("mine.h5", None, "mine"),
        ("mine.keras", "functional_3", "mine"),
        ("mine.keras", "mobilenetv2_1.00_224", "mine"),
        ("mine.keras", "resnet20", "resnet20"),
        ("model.keras", "chosen", "chosen"),
        ("Mein Modèle (neu).keras", None, "Mein_Modele_neu"),
        ("model.keras", "functional_3", "functional_3"),
        ("模型.keras", "functional_3", "functional_3"),
    ],
)
def test_networks_are_called_by_their_files(tmp_path, file, given, name):
    model = classifier(keras.layers.Conv2D(4, 3, name="conv"), name=given)
    model.save(tmp_path / file)
    loaded = load_network(str(tmp_path / file))
    assert loaded.name == name
    before, after = map(Graph.from_model, (model, loaded))
    assert (after.network, after.digest) == (name, before.digest)


def test_shapes_of_networks_under_their_earlier_names_still_fit(tmp_path):
    model = classifier(keras.layers.Conv2D(4, 3, name="conv"), name="functional_3")
    (tmp_path / "shape.json").write_text(json.dumps(Shape.smallest(SearchSpace.from_model(model)).to_json()))
    model.save(tmp_path / "mine.keras")
    space = SearchSpace.from_model(load_network(str(tmp_path / "mine.keras")))
    shape = Shape.load(tmp_path / "shape.json")
    shape.check(space)
    assert (shape.network, space.graph.network) == ("functional_3", "mine")


@pytest.mark.filterwarnings("ignore:You are saving a model that has not yet been built:UserWarning")
def test_sequential_models_without_an_input_are_loaded(tmp_path):
    keras.Sequential([keras.layers.Dense(2)], name="later").save(tmp_path / "model.keras")
    assert load_network(str(tmp_path / "model.keras")).name == "later"


def test_files_of_a_run_keep_the_names_of_their_networks(tmp_path):
    classifier(name="pets").save(tmp_path / "from_race.keras")
    assert load_file(tmp_path / "from_race.keras").name == "pets"


def export_saved_model(path):
    classifier().export(path, verbose=False)


def save_as_keras_2(path):
    images = tf_keras.Input((4, 4, 3))
    tf_keras.Model(images, tf_keras.layers.Flatten()(images)).save(path, save_format="tf")


def save_as(path, name):
    """Saves a model or its weights under a name, and renames the file."""
    saved = path.with_name(name)
    (classifier().save_weights if ".weights." in name else classifier().save)(saved)
    saved.rename(path)


@pytest.mark.parametrize(
    ("name", "write", "advice"),
    [
        ("mine", export_saved_model, "SavedModel, which holds no layers.*original Keras model"),
        ("mine", save_as_keras_2, "SavedModel of Keras 2.*tf_keras.models.load_model"),
        ("mine.tflite", None, "TFLite file.*Keras model that it was converted from"),
        ("mine.onnx", None, "ONNX file.*Build the network with Keras"),
        *((f"mine.{suffix}", None, "holds weights.*copy the weights") for suffix in ("pt", "pth", "safetensors")),
        ("mine.pb", None, "TensorFlow graph"),
        ("mine.json", None, "model_from_json"),
        ("mine.pkl", None, "Unpickle"),
        ("mine.weights.h5", lambda path: classifier().save_weights(path), "weights alone.*model.load_weights"),
        ("mine.h5", lambda path: save_as(path, "mine.weights.h5"), "weights alone.*model.load_weights"),
        ("mine.h5", lambda path: save_as(path, "saved.keras"), "Rename it so that it ends in .keras"),
        ("mine.keras", lambda path: save_as(path, "saved.h5"), "is an HDF5 file. Rename it so that it ends in .h5"),
        ("mine.h5", lambda path: h5py.File(path, "w").close(), "is an HDF5 file without a Keras model"),
        ("mine.h5", None, "is damaged or isn't an HDF5 file"),
        ("mine.PTH", None, "holds weights"),
        ("mine.mlmodel", None, "no Keras layers"),
        ("mine.ckpt", lambda path: path.with_name("mine.ckpt.index").write_bytes(b""), "TensorFlow checkpoint"),
        ("folder.keras", lambda path: path.mkdir(), "is a folder"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*:UserWarning:tf_keras")
def test_other_formats_are_refused_with_what_to_do(tmp_path, name, write, advice):
    (write or (lambda path: path.write_bytes(b"content")))(tmp_path / name)
    with pytest.raises(UserError, match=rf"`model`.*{name}.*{advice}") as caught:
        load_network(str(tmp_path / name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ["visititems_links", "visititems"])
def test_what_h5py_raises_for_damage_is_damage(tmp_path, monkeypatch, method):
    """Its compiled code may end with an error of Python itself."""

    def fail(*given):
        raise SystemError("returned a result with an exception set")

    classifier().save(tmp_path / "mine.h5")
    monkeypatch.setattr(h5py.File, method, fail)
    with pytest.raises(UserError, match=r"mine\.h5 is damaged or isn't an HDF5 file"):
        load_network(str(tmp_path / "mine.h5"))


class Mine(keras.layers.Layer):
    def __init__(self, factor, **options):
        super().__init__(**options)
        self.factor = factor

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}

    def call(self, images):
        return self.factor * images


class Incomplete(Mine):
    def get_config(self):
        return keras.layers.Layer.get_config(self)


def steep(x):
    return 3 * keras.ops.relu(x)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize(
    ("layer", "lacking"),
    [
        (Mine(2.0, name="own"), "layer `own` needs the class Mine"),
        (keras.layers.Conv2D(3, 1, activation=steep, name="conv"), "layer `conv` needs the (function|class) steep"),
    ],
    ids=["class", "function"],
)
@pytest.mark.usefixtures("own_layers")
def test_own_layers_come_from_python_files(tmp_path, suffix, layer, lacking):
    path = tmp_path / f"network{suffix}"
    model = classifier(layer)
    model.save(path)
    with pytest.raises(UserError, match=rf"{lacking}.*`custom_objects`"):
        load_network(str(path))
    source = "".join(inspect.getsource(one) + "\n\n" for one in (Mine, steep))
    (tmp_path / "my_layers.py").write_text(f"import keras\n\n{source}")
    loaded = load_network(str(path), custom_objects=tmp_path / "my_layers.py")
    images = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype("float32")
    np.testing.assert_array_equal(loaded(images), model(images))
    assert Graph.from_model(loaded).network == "network"


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.usefixtures("own_layers")
def test_errors_about_own_layers_name_the_layer(tmp_path, suffix):
    path = tmp_path / f"network{suffix}"
    classifier(Incomplete(2.0, name="own")).save(path)
    with pytest.raises(UserError, match=r"layer `own` \(Incomplete\).*missing 1 required positional argument"):
        load_network(str(path), custom_objects={"Incomplete": Incomplete})


class Grumpy(keras.layers.Layer):
    good = True

    def call(self, images):
        if not self.good:
            raise ValueError("not today")
        return images


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.usefixtures("own_layers")
def test_errors_of_own_layers_name_the_layer(tmp_path, suffix, monkeypatch):
    path = tmp_path / f"network{suffix}"
    classifier(Grumpy(name="own")).save(path)
    monkeypatch.setattr(Grumpy, "good", False)
    with pytest.raises(UserError, match=r"layer `own` \(Grumpy\) can't be called: not today"):
        load_network(str(path), custom_objects={"Grumpy": Grumpy})


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.usefixtures("own_layers")
def test_code_in_a_file_runs_only_on_request(tmp_path, suffix):
    path = tmp_path / f"mine{suffix}"
    model = classifier(keras.layers.Lambda(lambda x: x * 2, name="code"), keras.layers.Identity(name="Lambda"))
    model.save(path)
    with pytest.raises(UserError, match=r"in Lambda layers \(code\).*`unsafe_load`"):
        load_network(str(path))
    with pytest.warns(UserWarning, match="can do whatever you can do.*safe_mode=False"):
        loaded = load_network(str(path), unsafe_load=True)
    images = np.ones((1, 6, 6, 3), "float32")
    np.testing.assert_array_equal(loaded(images), model(images))
    with pytest.raises(UserError, match="Lambda"):
        load_network(str(path))  # each file is asked for


@pytest.mark.usefixtures("own_layers")
def test_code_that_needs_its_program_is_explained(tmp_path):
    classifier(keras.layers.Lambda(lambda x: steep(x), name="code")).save(tmp_path / "mine.keras")
    with pytest.raises(UserError, match=r"Lambda layer \(code\) doesn't run.*Import and define inside"):
        load_network(str(tmp_path / "mine.keras"), unsafe_load=True, say=len)


def test_a_file_with_code_inside_is_refused(tmp_path):
    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x * 2)]).save(path)
    with pytest.raises(UserError, match="Lambda"):
        load_network(str(path))

import zipfile

import keras
import numpy as np
import pytest

from tas_tf.errors import UserError
from tas_tf.zoo.loading import in_precision, load_network


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


def test_a_file_with_code_inside_is_refused(tmp_path):
    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x * 2)]).save(path)
    with pytest.raises(UserError, match="Lambda"):
        load_network(str(path))

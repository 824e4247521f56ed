import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras.applications.imagenet_utils import preprocess_input

from tas_tf.data.preprocessing import PREPROCESSING_KINDS, Preprocessing
from tas_tf.data.source import make_array_source
from tas_tf.errors import UserError


def _reference(images, kind, mean, std):
    images = images.astype(np.float64)
    return {
        "standardise": lambda: (images - mean) / std,
        "none": lambda: images,
        "scale_0_1": lambda: images / 255,
        "scale_-1_1": lambda: images / 127.5 - 1,
        "torch": lambda: preprocess_input(images.copy(), mode="torch", data_format="channels_last"),
        "caffe": lambda: preprocess_input(images.copy(), mode="caffe", data_format="channels_last"),
    }[kind]()


@pytest.mark.parametrize("kind", PREPROCESSING_KINDS)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_apply_equals_numpy_and_the_layers(small_source, kind, dtype):
    images = small_source.images("train").astype(dtype)
    preprocessing = Preprocessing.fit(small_source, kind)
    mean, std = images.astype(np.float64).mean((0, 1, 2)), images.astype(np.float64).std((0, 1, 2))
    applied = preprocessing.apply(images).numpy()
    assert applied.dtype == np.float32
    assert np.allclose(applied, _reference(images, kind, mean, std), atol=1e-5)
    layered = images.astype(np.float32)
    for layer in preprocessing.layers():
        layered = layer(layered)
    assert np.array_equal(applied, np.asarray(layered))


@pytest.mark.parametrize("kind", PREPROCESSING_KINDS)
def test_the_description_is_enough_to_do_it_in_numpy(small_source, kind):
    images = small_source.images("test")
    preprocessing = Preprocessing.fit(small_source, kind)
    described = json.loads(json.dumps(preprocessing.affine()))
    assert described.keys() == {"channel_order", "scale", "offset"}
    assert {len(described["scale"]), len(described["offset"])} <= {1, 3}
    pixels = {"rgb": images, "bgr": images[..., ::-1]}[described["channel_order"]]
    found = pixels * np.array(described["scale"]) + np.array(described["offset"])
    np.testing.assert_allclose(found, preprocessing.apply(images), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("kind", PREPROCESSING_KINDS)
def test_it_can_be_undone(small_source, kind):
    images, preprocessing = small_source.images("test"), Preprocessing.fit(small_source, kind)
    np.testing.assert_allclose(preprocessing.undo(preprocessing.apply(images).numpy()), images, atol=1e-3)


def test_grey_images_are_described_alike():
    images = np.arange(4 * 16, dtype=np.uint8).reshape(4, 4, 4, 1)
    source = make_array_source("grey", "ab", train=(images, np.arange(4) % 2), test=(images, np.zeros(4)), flip_ok=True)
    described = Preprocessing.fit(source, "standardise").affine()
    found = images * np.array(described["scale"]) + np.array(described["offset"])
    np.testing.assert_allclose(found, (images - 31.5) / np.arange(64).std(), rtol=1e-6)


def test_only_the_given_training_images_are_measured(small_source):
    indices = np.array([3, 10, 11])
    preprocessing = Preprocessing.fit(small_source, "standardise", indices=indices)
    measured = small_source.images("train")[indices].astype(np.float64)
    assert np.allclose(preprocessing.mean, measured.mean((0, 1, 2)), rtol=1e-12)
    assert np.allclose(preprocessing.std, measured.std((0, 1, 2)), rtol=1e-12)


def test_constant_channel():
    images = np.zeros((5, 4, 4, 2), np.uint8)
    images[..., 1] = np.arange(5)[:, None, None]
    source = make_array_source("x", "ab", train=(images, np.arange(5) % 2), test=(images, np.zeros(5)), flip_ok=True)
    assert np.allclose(Preprocessing.fit(source, "standardise").std, [1.0, np.sqrt(2)])


def test_layers_stay_float32_under_a_mixed_policy(small_source):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        (layer,) = Preprocessing.fit(small_source, "standardise").layers()
        assert layer.compute_dtype == "float32"
    finally:
        keras.config.set_dtype_policy(before)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["standardise", pytest.param("caffe", marks=pytest.mark.slow)])
def test_layers_reload_without_this_package(small_source, tmp_path, kind):
    preprocessing = Preprocessing.fit(small_source, kind)
    model = keras.Sequential([keras.Input((6, 5, 3)), *preprocessing.layers()])
    model.save(tmp_path / "model.keras")
    images = small_source.images("test").astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    script = (
        "import keras, numpy as np, sys\n"
        "assert 'tas_tf' not in sys.modules\n"
        "np.save('out.npy', keras.models.load_model('model.keras').predict(np.load('images.npy'), verbose=0))\n"
    )
    subprocess.run([sys.executable, "-I", "-c", script], cwd=tmp_path, check=True, capture_output=True)
    assert np.array_equal(np.load(tmp_path / "out.npy"), preprocessing.apply(images))


def test_unknown_kind():
    with pytest.raises(UserError, match=r"Expected one of standardise, none, .*caffe\. Received: 'zca'"):
        Preprocessing("zca")


@pytest.mark.parametrize("kind", ["torch", "caffe"])
def test_colours_need_three_channels(kind):
    images = np.zeros((4, 4, 4, 1), np.uint8)
    source = make_array_source("grey", "ab", train=(images, np.arange(4) % 2), test=(images, np.zeros(4)), flip_ok=True)
    with pytest.raises(UserError, match=rf"{kind} is for images of 3 channels\. Received: 1 in `grey`"):
        Preprocessing.fit(source, kind)


@pytest.mark.parametrize(("mean", "std"), [((), ()), ((1.0,), (0.0,)), ((1.0, 2.0), (1.0,))])
def test_unfit_statistics(mean, std):
    with pytest.raises(UserError, match="don't fit `standardise`"):
        Preprocessing("standardise", mean, std)

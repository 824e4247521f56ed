"""Size and time of layers in files, compared with the Keras layers that they come from."""

from pathlib import Path

import keras
import numpy as np
import pytest

from tas_tf.deploy.layers import REST, layers_of_file
from tas_tf.deploy.profile import profile_file
from tas_tf.deploy.tflite import export_tflite
from tests.parts import slow_except

#: Bytes of a weight in each format; biases and small kernels are exceptions, see below.
WIDTHS = {"fp32": 4, "fp16": 2, "dynamic": 1, "int8": 1}


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """Every operator with kernels: a strided convolution, a separable one, 1x1, a skip connection, a dense layer."""
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 3), name="images")
    x = keras.layers.Conv2D(32, 3, strides=2, padding="same", use_bias=False, name="stem")(images)
    x = skip = keras.layers.ReLU(name="relu")(keras.layers.BatchNormalization(name="stem_bn")(x))
    x = keras.layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = keras.layers.Conv2D(32, 1, name="pointwise")(x)
    x = keras.layers.Conv2DTranspose(16, 2, strides=2, name="up")(keras.layers.Add(name="add")([x, skip]))
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(images, keras.layers.Dense(10, activation="softmax", name="top")(x), name="net")


@pytest.fixture(scope="module")
def file_of(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    calibration = np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype(np.float32)

    def write(format: str) -> Path:
        options = {"calibration": calibration} if format == "int8" else {}
        return export_tflite(model, folder / f"{format}.tflite", format=format, **options)

    return write


@pytest.mark.parametrize("format", slow_except(WIDTHS, ["fp16", "int8"]))
def test_each_kernel_is_a_layer_of_the_models(model, file_of, format):
    path = file_of(format)
    *found, rest = layers_of_file(path, model)
    assert [one.name for one in found] == ["stem", "depthwise", "pointwise", "up", "top"]
    assert [one.operator for one in found] == [
        *("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED")
    ]
    for one in found:
        kernel = int(np.prod(model.get_layer(one.name).weights[0].shape))
        least = kernel * WIDTHS[format]
        # Biases have 4 bytes at most, and `dynamic` leaves small kernels as they are.
        most = kernel * (4 if format == "dynamic" and kernel < 1024 else WIDTHS[format]) + 4 * 32 + 32
        assert least <= one.bytes <= most, one
    assert rest.name == REST
    assert sum(one.bytes for one in (*found, rest)) == path.stat().st_size
    assert {one.milliseconds for one in (*found, rest)} == {None}


def test_times_of_a_profile_are_handed_to_layers(make_classifier, tmp_path):
    model = make_classifier(filters=32)
    path = export_tflite(model, tmp_path / "fp32.tflite")
    profile = profile_file(path)
    if profile is None:
        pytest.skip("LiteRT's profiler gave no times: this machine is busy, or the profiler doesn't run on it")
    *found, rest = layers_of_file(path, model, profile.calls)
    times = [one.milliseconds for one in found]
    assert sum(times) + rest.milliseconds == pytest.approx(sum(one.milliseconds for one in profile.operators))
    assert times == [time for name, time in profile.calls if name.startswith(("Convolution", "Fully"))]
    assert len(times) == 3


def test_calls_in_another_order_give_no_times(model, file_of):
    names = ["Convolution", "Convolution", "Fully Connected", "Deconvolution", "Fully Connected"]

    def timed(calls: list[str]) -> list[float | None]:
        pairs = [(name, float(number)) for number, name in enumerate(calls)]
        return [one.milliseconds for one in layers_of_file(file_of("fp32"), model, pairs)]

    assert timed(names) == [0, 1, 2, 3, 4, 0]
    assert timed([*names[:3], "Add (ND)", *names[3:]]) == [0, 1, 2, 4, 5, 3]
    for wrong in (names[::-1], names[1:], [*names, "Convolution"]):
        assert set(timed(wrong)) == {None}


def test_shared_weights_count_once(tmp_path):
    images = keras.Input((4, 4, 8))
    shared = keras.layers.Conv2D(8, 3, padding="same", name="shared")
    model = keras.Model(images, keras.layers.Flatten()(shared(keras.layers.ReLU()(shared(images)))))
    *found, _ = layers_of_file(export_tflite(model, tmp_path / "shared.tflite"), model)
    assert [one.name for one in found] == ["shared", "shared"]
    assert sum(one.bytes for one in found) == 4 * (3 * 3 * 8 * 8 + 8)

"""The example for classes of pixels: masks and shares against the Keras model."""

import runpy
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import tas_tf
from tas_tf.data.preprocessing import Preprocessing
from tests.parts import slow_except

PROGRAM = Path(__file__).parents[2] / "examples" / "segment_tflite.py"


def network(outputs: int, activation: str | None) -> keras.Model:
    images = keras.Input((12, 16, 3))
    model = keras.Model(images, keras.layers.Conv2D(outputs, 3, padding="same", activation=activation)(images))
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=weight.shape) for weight in model.weights])
    return model


@pytest.fixture
def photo(tmp_path):
    """An image of the network's own size, with a border between two colours."""
    pixels = np.random.default_rng(1).integers(0, 80, (12, 16, 3), np.uint8)
    pixels[:, 8:] += 150
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def run(monkeypatch, *arguments) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys, "argv", [str(PROGRAM), *map(str, arguments)])
    runpy.run_path(str(PROGRAM))


@pytest.mark.parametrize(
    ("format", "outputs", "activation"),
    slow_except(
        [(format, *end) for format in ("fp32", "int8") for end in ((4, "softmax"), (1, "sigmoid"), (1, None))],
        [("int8", 4, "softmax"), ("fp32", 1, "sigmoid"), ("fp32", 1, None)],
    ),
)
def test_masks(tmp_path, photo, monkeypatch, capsys, outputs, activation, format):
    model = network(outputs, activation)
    pixels = np.asarray(Image.open(photo), np.float32)[None] / 255
    labels = [f"class {number}" for number in range(outputs)]
    metadata = tas_tf.Metadata("net", labels, (12, 16, 3), Preprocessing("scale_0_1"), False, activation is not None)
    calibration = np.concatenate([pixels, 0 * pixels, 1 + 0 * pixels])
    path = tas_tf.export_tflite(
        model, tmp_path / "net.tflite", format=format, metadata=metadata, calibration=calibration
    )
    run(monkeypatch, path, photo)
    output = model.predict(pixels, verbose=0)[0]
    expected = output.argmax(-1) if outputs > 1 else output[..., 0] > (0.5 if activation else 0)
    mask = Image.open(tmp_path / "photo_mask.png")
    found = np.asarray(mask)
    assert (mask.mode, mask.size) == ("P", (16, 12))
    assert (found == expected).mean() > (0.999 if format == "fp32" else 0.95)
    shares = [float(line.split("%")[0]) for line in capsys.readouterr().out.splitlines()[1:]]
    np.testing.assert_allclose(shares, [100 * (found == one).mean() for one in range(max(2, outputs))], atol=0.01)


def test_an_image_of_another_size_gets_a_mask_of_its_own_size(tmp_path, photo, monkeypatch):
    with Image.open(photo) as image:
        image.resize((50, 41)).save(photo)
    metadata = tas_tf.Metadata("net", "ab", (12, 16, 3), Preprocessing("scale_0_1"), False, True)
    path = tas_tf.export_tflite(network(2, "softmax"), tmp_path / "net.tflite", metadata=metadata)
    run(monkeypatch, path, photo)
    with Image.open(tmp_path / "photo_mask.png") as mask:
        assert mask.size == (50, 41)


def test_a_file_that_is_missing(tmp_path, photo, monkeypatch):
    with pytest.raises(FileNotFoundError):
        run(monkeypatch, tmp_path / "none.tflite", photo)

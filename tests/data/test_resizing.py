"""Images of other proportions are squashed, cut or padded, as Keras does it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tas_tf.data.resizing import changes_proportions, pair, resize_image, with_channels


def photo(height: int, width: int) -> np.ndarray:
    """Smooth, so that antialiasing changes little."""
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [np.sin(rows / 17 + 1), np.cos(columns / 13), np.sin((rows + columns) / 19)]
    return np.uint8(np.round(127 + 120 * np.stack(waves, -1)))


@pytest.mark.parametrize(
    ("way", "options"),
    [("squash", {}), ("crop", {"crop_to_aspect_ratio": True}), ("pad", {"pad_to_aspect_ratio": True})],
)
@pytest.mark.parametrize("size", [(48, 48), (24, 60)])
def test_each_way_is_keras_s(tmp_path, way, options, size):
    (tmp_path / "a").mkdir()
    pixels = photo(90, 150)
    Image.fromarray(pixels).save(tmp_path / "a" / "0.png")
    (expected,) = keras.utils.image_dataset_from_directory(
        tmp_path, labels=None, batch_size=None, image_size=size, verbose=False, **options
    )
    found = resize_image(tf.constant(pixels), size, way).numpy()
    assert found.dtype == np.uint8
    difference = np.abs(found - expected.numpy())
    assert difference.max() < 9  # Keras doesn't antialias
    assert np.median(difference) < 2


def test_windows_are_whole_pixels_of_the_image():
    pixels = np.arange(7 * 10, dtype=np.uint8).reshape(7, 10, 1)
    cut = resize_image(tf.constant(pixels), (7, 7), "crop").numpy()
    assert np.array_equal(cut, pixels[:, 1:8])
    padded = resize_image(tf.constant(pixels), (10, 10), "pad").numpy()
    assert np.array_equal(padded, np.pad(pixels, [(1, 2), (0, 0), (0, 0)]))
    tall = resize_image(tf.constant(pixels.transpose(1, 0, 2)), (10, 30), "pad").numpy()
    assert np.array_equal(tall[:, 11:18], pixels.transpose(1, 0, 2))
    assert not tall[:, :11].any()
    assert not tall[:, 18:].any()


@pytest.mark.parametrize("way", ["squash", "crop", "pad"])
@pytest.mark.parametrize("shape", [(1, 9), (9, 1), (1, 1), (300, 2)])
def test_extreme_proportions_still_give_an_image(way, shape):
    image = tf.fill([*shape, 3], tf.constant(200, tf.uint8))
    found = resize_image(image, (6, 5), way).numpy()
    assert found.shape == (6, 5, 3)
    if way != "pad":
        assert np.all(found == 200)


def test_the_way_matters_only_where_proportions_differ():
    for height, width in [(48, 144), (144, 48), (96, 97), (50, 50), (481, 640)]:
        pixels = tf.constant(photo(height, width))
        for size in [(24, 24), (24, 72), (72, 96)]:
            squashed, cut = (resize_image(pixels, size, way).numpy() for way in ("squash", "crop"))
            if not changes_proportions(height, width, size):
                assert np.array_equal(squashed, cut), (height, width, size)
    assert changes_proportions(48, 144, (24, 24))
    assert not changes_proportions(48, 144, (24, 72))
    assert changes_proportions(None, None, (24, 24))


def test_sizes_and_channels():
    assert pair(5) == (5, 5)
    assert pair([4, 6]) == (4, 6)
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
    assert np.array_equal(with_channels(tf.constant(grey), 3), np.repeat(grey, 3, axis=-1))
    assert np.abs(with_channels(tf.constant(np.repeat(grey, 3, -1)), 1).numpy().astype(int) - grey).max() <= 1

import numpy as np
import pytest
import tensorflow as tf

from tas_tf.data.augmentation import Augmentation, random_boxes, random_resized_crop, shift_and_flip
from tas_tf.errors import UserError


def _windows(image, pad, flip):
    """All images that pad-crop and flip can make of `image`, by their bytes: (top, left, mirrored)."""
    height, width, _ = image.shape
    padded = np.zeros((height + 2 * pad, width + 2 * pad, image.shape[2]), image.dtype)
    padded[pad : pad + height, pad : pad + width] = image
    windows = {}
    for top in range(2 * pad + 1):
        for left in range(2 * pad + 1):
            window = padded[top : top + height, left : left + width]
            windows[window.tobytes()] = (top, left, False)
            if flip:
                windows[window[:, ::-1].tobytes()] = (top, left, True)
    return windows


@pytest.mark.parametrize(("pad", "flip"), [(2, True), (2, False), (0, True)])
def test_every_result_is_a_window_and_all_windows_occur(pad, flip):
    image = np.random.default_rng(0).integers(1, 256, (6, 5, 3)).astype(np.uint8)
    batch = tf.constant(np.repeat(image[np.newaxis], 2000, axis=0))
    changed = shift_and_flip(batch, pad=pad, flip=flip, seed=tf.constant([1, 2])).numpy()
    windows = _windows(image, pad, flip)
    found = [windows[result.tobytes()] for result in changed]
    counts = {window: found.count(window) for window in windows.values()}
    expected = len(changed) / len(windows)
    assert len(windows) == (2 * pad + 1) ** 2 * (1 + flip)
    # Five standard deviations of a binomial count.
    assert all(abs(count - expected) < 5 * np.sqrt(expected) for count in counts.values())


def test_images_of_a_batch_stay_apart_and_seeds_decide():
    images = np.random.default_rng(0).integers(1, 256, (40, 6, 5, 3)).astype(np.uint8)
    first, again, other = (
        shift_and_flip(tf.constant(images), pad=1, flip=True, seed=tf.constant(seed)).numpy()
        for seed in ([1, 2], [1, 2], [1, 3])
    )
    for image, result in zip(images, first, strict=True):
        assert result.tobytes() in _windows(image, 1, True)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_boxes_have_the_sizes_asked_for():
    boxes = random_boxes(tf.constant(3000), tf.constant(80), tf.constant(120), seed=tf.constant([3, 4])).numpy()
    corners = boxes * [79, 119, 79, 119]
    assert np.allclose(corners, np.round(corners), atol=1e-4)
    height, width = corners[:, 2] - corners[:, 0] + 1, corners[:, 3] - corners[:, 1] + 1
    assert np.all((boxes > -1e-6) & (boxes < 1 + 1e-6))
    share = height * width / (80 * 120)
    assert 0.07 < share.min() < 0.1
    assert 0.8 < share.max() <= 1.0
    aspect = width / height
    assert 0.72 < aspect.min() < 0.78
    assert 1.28 < aspect.max() < 1.38


def test_extreme_shapes_fall_back_to_the_whole_image():
    boxes = random_boxes(tf.constant(50), tf.constant(1), tf.constant(400), seed=tf.constant([3, 4])).numpy()
    assert np.all(np.isfinite(boxes))
    # Windows of 8 % of 400 pixels or more are never 1 pixel high: none fits.
    assert np.allclose(boxes, [0, 0, 0, 1])


def test_resized_crops_of_a_ramp_stay_ramps():
    ramp = np.broadcast_to(np.arange(0, 200, 2, dtype=np.uint8)[None, None, :, None], (30, 90, 100, 1))
    crops = random_resized_crop(tf.constant(ramp), size=(20, 20), seed=tf.constant([5, 6])).numpy()
    assert crops.dtype == np.uint8
    assert crops.shape == (30, 20, 20, 1)
    assert np.array_equal(crops, np.broadcast_to(crops[:, :1], crops.shape))
    steps = np.diff(crops[:, 0, :, 0].astype(int), axis=1)
    assert np.all(np.ptp(steps, axis=1) <= 2)
    assert np.all(steps >= 0)
    assert len({crop[0, 0, 0] for crop in crops}) > 5


def test_contradictions():
    with pytest.raises(UserError, match="`pad_crop` must be at least 0"):
        Augmentation(pad_crop=-1)
    with pytest.raises(UserError, match="exclude each other"):
        Augmentation(pad_crop=4, random_resized_crop=True)


@pytest.mark.parametrize("strengths", [(0.4, 0.4, 0.4), (0.4, -0.1, 0.4, 0.1), (0.4, 0.4, 0.4, 0.6)])
def test_strengths_of_colour_changes(strengths):
    with pytest.raises(UserError, match=r"`color_jitter`.*must"):
        Augmentation(color_jitter=strengths)
    with pytest.raises(UserError, match="`lighting` must be at least 0"):
        Augmentation(lighting=-0.1)

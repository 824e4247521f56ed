"""Changes of colour against NumPy and the standard library, pixel by pixel."""

import colorsys
import itertools

import numpy as np
import pytest
import tensorflow as tf

from tas_tf.data.colour import change_colours, draw_factors, jitter_colours, shift_lighting

STRENGTHS = (0.4, 0.3, 0.8, 0.2)


def some_images(count: int = 5) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 4, 3, 3)).astype(np.uint8)


def grey(image: np.ndarray) -> np.ndarray:
    return image @ np.array([[0.299], [0.587], [0.114]])


def turn_hue(image: np.ndarray, share: float) -> np.ndarray:
    result = np.zeros_like(image)
    for place in np.ndindex(*image.shape[:2]):
        hue, saturation, value = colorsys.rgb_to_hsv(*image[place] / 255)
        result[place] = 255 * np.array(colorsys.hsv_to_rgb((hue + share) % 1, saturation, value))
    return result


#: What each change makes of one image, float64 `[height, width, 3]`.
CHANGES = (
    lambda image, factor: factor * image,
    lambda image, factor: factor * image + (1 - factor) * grey(image).mean(),
    lambda image, factor: factor * image + (1 - factor) * grey(image),
    turn_hue,
)


def jittered(images: np.ndarray, factors: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    results = []
    for image, amounts in zip(images.astype(np.float64), factors.astype(np.float64), strict=True):
        for number in order:
            image = np.clip(CHANGES[number](image, amounts[number]), 0, 255)
        results.append(image)
    return np.stack(results)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_jitter_is_numpys(order):
    images, rng = some_images(), np.random.default_rng(1)
    factors = np.concatenate([rng.uniform(0, 2, (5, 3)), rng.uniform(-0.5, 0.5, (5, 1))], axis=1).astype(np.float32)
    result = jitter_colours(tf.cast(images, tf.float32), tf.constant(factors), order=tf.constant(order))
    np.testing.assert_allclose(result, jittered(images, factors, order), atol=0.02)


def test_without_a_change_colours_stay():
    factors = tf.constant([[1.0, 1.0, 1.0, 0.0]] * 5)
    result = jitter_colours(tf.cast(some_images(), tf.float32), factors, order=tf.range(4))
    np.testing.assert_allclose(result, some_images(), atol=0.01)


def test_factors_fill_their_ranges_evenly():
    factors = draw_factors(tf.constant(4000), (0.4, 1.5, 0.0, 0.2), seed=tf.constant([1, 2])).numpy()
    np.testing.assert_allclose(factors.min(0), [0.6, 0.0, 1.0, -0.2], atol=0.01)
    np.testing.assert_allclose(factors.max(0), [1.4, 2.5, 1.0, 0.2], atol=0.01)
    np.testing.assert_allclose(factors.mean(0), [1.0, 1.25, 1.0, 0.0], atol=0.05)
    assert abs(np.corrcoef(factors[:, [0, 1, 3]].T) - np.eye(3)).max() < 0.1


def test_lighting_is_numpys():
    directions = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
    amounts = np.random.default_rng(2).normal(0, 0.3, (5, 3)).astype(np.float32)
    expected = [
        np.clip(image + 255 * directions @ (amount * [0.2175, 0.0188, 0.0045]), 0, 255)
        for image, amount in zip(some_images(), amounts, strict=True)
    ]
    np.testing.assert_allclose(shift_lighting(tf.cast(some_images(), tf.float32), amounts), expected, atol=1e-3)


def test_the_shifts_of_lighting_have_the_spread_asked_for():
    grey_images = tf.fill([3000, 1, 1, 3], tf.constant(128, tf.uint8))
    changed = change_colours(grey_images, color_jitter=(0.0,) * 4, lighting=0.4, seed=tf.constant([3, 4])).numpy()
    shifts = changed[:, 0, 0].astype(float) - 128
    # Nearly all of it lies along the first component: 255 * 0.2175 * 0.4 * 0.5675 and so on.
    np.testing.assert_allclose(shifts.std(0), [12.7, 12.9, 13.0], rtol=0.06)
    np.testing.assert_allclose(shifts.mean(0), 0, atol=1.2)


def test_seeds_decide_and_images_differ():
    images = tf.constant(np.repeat(some_images(1), 6, axis=0))
    first, again, other = (
        change_colours(images, color_jitter=STRENGTHS, lighting=0.1, seed=tf.constant(seed)).numpy()
        for seed in ([1, 2], [1, 2], [1, 3])
    )
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert len({image.tobytes() for image in first}) == 6


def test_orders_vary_from_seed_to_seed():
    """Clipping tells which change came first."""
    image = tf.constant([[[[250, 30, 60]]]], tf.uint8)
    found = set()
    for number in range(60):
        seed = tf.constant([7, number])
        factors = draw_factors(tf.constant(1), STRENGTHS, seed=tf.random.split(seed, 3)[0]).numpy()
        result = change_colours(image, color_jitter=STRENGTHS, lighting=0.0, seed=seed).numpy()
        fits = [
            order
            for order in itertools.permutations(range(4))
            if np.abs(jittered(image.numpy(), factors, order) - result).max() < 0.52
        ]
        assert fits
        if len(fits) == 1:
            found.add(fits[0])
    assert len(found) > 3

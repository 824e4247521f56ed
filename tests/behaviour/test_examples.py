"""Which examples are kept, and their pixels."""

import io

import numpy as np
import pytest
from PIL import Image

from tas_tf.behaviour.examples import Mistake, Mistakes, to_pixels, to_png


@pytest.mark.parametrize("order", [1, -1])
def test_those_the_student_is_surest_of_are_kept_in_order(order):
    chances = [0.5, 0.9, 0.7, 0.9, 0.6, 0.95]
    kept = Mistakes(3)
    for index in range(6)[::order]:
        image = np.full((2, 2, 1), float(index))
        kept.saw(image)
        kept.add(Mistake(index, 1, 2, 0.8, chances[index]), image)
    found = kept.result()
    assert [mistake.index for mistake, _ in found] == [5, 1, 3]
    # The range of all images counts, not that of those that are kept.
    assert [int(pixels[0, 0, 0]) for _, pixels in found] == [255, 51, 153]


def test_what_is_kept_keeps_no_batch_in_memory():
    batch = np.zeros((16, 2, 2, 1))
    kept = Mistakes(1)
    for index in range(2):
        kept.add(Mistake(index, 1, 2, 0.8, 0.5 + index / 10), batch[index])
    ((*_, image),) = kept._kept
    assert not np.shares_memory(image, batch)


def test_none_may_be_kept():
    kept = Mistakes(0)
    kept.add(Mistake(0, 1, 2, 0.8, 0.9), np.zeros((2, 2, 1)))
    assert kept.result() == []


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 16, 255], [0, 16, 255]),
        ([0, 4, 16], [0, 64, 255]),
        ([0, 4, 200], [0, 4, 200]),
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([-2.0, 0.0, 6.0], [0, 64, 255]),
        ([3.0, 3.0], [0, 0]),
    ],
)
def test_values_of_any_range_become_pixels(values, expected):
    values = np.array(values)
    assert to_pixels(values, values.min(), values.max()).tolist() == expected


@pytest.mark.parametrize(
    ("shape", "size", "mode"),
    [((8, 8, 1), (64, 64), "L"), ((32, 16, 3), (32, 64), "RGB"), ((300, 600, 3), (128, 64), "RGB")],
)
def test_pngs_have_a_size_that_can_be_shown(shape, size, mode):
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    image = Image.open(io.BytesIO(to_png(pixels)))
    assert (image.size, image.mode) == (size, mode)
    if max(shape) < 64:
        factor = size[0] // shape[1]
        assert np.array_equal(np.asarray(image).reshape(*size[::-1], -1)[::factor, ::factor], pixels)

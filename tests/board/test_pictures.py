import numpy as np

from tas_tf.board.pictures import draw_distributions, draw_shape, draw_shapes
from tas_tf.space.choices import ChoiceTable
from tas_tf.space.shape import Shape
from tas_tf.space.summary import summarise_shape
from tests.digits import tiny_space


def test_the_more_probable_the_darker():
    choices = ChoiceTable.from_choices(tiny_space().units[:2])
    probabilities = np.zeros((2, 7))
    probabilities[:, 0] = 1.0
    (image,) = draw_distributions(probabilities, choices)
    (swapped,) = draw_distributions(probabilities[:, ::-1], choices)
    assert image.dtype == np.uint8
    # Blue where red is missing; the certain candidate stands left in one image, right in the other.
    red, other = (picture[..., 0].astype(float).mean(0) for picture in (image, swapped))
    middle = image.shape[1] * 2 // 3
    assert red[:middle].mean() < other[:middle].mean()
    assert red[middle:].mean() > other[middle:].mean()


def blue(image: np.ndarray) -> int:
    """Pixels in the colour of channels that are kept."""
    return int((image[0, ..., :3] == (0x0F, 0x6F, 0xB8)).all(-1).sum())


def test_bars_are_as_long_as_what_is_kept():
    space = tiny_space()
    full, smallest = (draw_shape(summarise_shape(space, one), "") for one in (Shape.full(space), Shape.smallest(space)))
    assert full.dtype == np.uint8
    assert full.shape == smallest.shape
    summary = summarise_shape(space, Shape.smallest(space))
    kept = sum(unit["kept"] for unit in summary["units"] if not unit["dropped"])
    share = kept / sum(unit["width"] for unit in summary["units"])
    # The bars of blocks shrink too, though not as much.
    assert share * blue(full) * 0.9 < blue(smallest) < 0.7 * blue(full)


def test_wider_shapes_are_darker():
    space = tiny_space()
    summaries = {
        name: summarise_shape(space, shape) for name, shape in (("a", Shape.full(space)), ("b", Shape.smallest(space)))
    }
    (both,) = draw_shapes(summaries)
    (swapped,) = draw_shapes(dict(reversed(summaries.items())))
    upper, lower = np.array_split(both[..., 0].astype(float), 2)
    other_upper, other_lower = np.array_split(swapped[..., 0].astype(float), 2)
    assert upper.mean() < other_upper.mean()
    assert lower.mean() > other_lower.mean()

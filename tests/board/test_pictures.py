import numpy as np
import tensorflow as tf

from tas_tf.board.pictures import (
    draw_captioned,
    draw_confusion,
    draw_distributions,
    draw_shape,
    draw_shapes,
)
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


def test_confusion_is_darkest_where_a_class_goes():
    certain = draw_confusion({"a": np.array([[9, 0], [0, 9]])}, ["cat", "dog"])
    split = draw_confusion({"a": np.array([[5, 4], [4, 5]])}, ["cat", "dog"])
    # Shares of 1 are the darkest blue there is; half shares aren't.
    darkest = [int((image[0, ..., :3].sum(-1) < 170).sum()) for image in (certain, split)]
    assert darkest[0] > 10 * max(1, darkest[1])
    wide = draw_confusion({"a": np.eye(2), "b": np.eye(2)}, ["cat", "dog"])
    assert abs(wide.shape[2] - 2 * certain.shape[2]) <= 1  # rounded pixels


def test_captioned_images_stand_in_rows_of_four():
    def png(value: int, channels: int) -> bytes:
        return tf.io.encode_png(np.full((8, 6, channels), value, np.uint8)).numpy()

    image = draw_captioned([png(0, 1), png(255, 3), png(0, 3), png(0, 1), png(120, 1)], list("abcde"))
    one = draw_captioned([png(120, 1)], ["e"])
    assert image.shape[1] == 2 * one.shape[1]
    assert image.shape[2] == 4 * one.shape[2]
    grey = (image[0, ..., :3] == 120).all(-1)
    assert grey.any()
    assert not grey[: image.shape[1] // 2].any()  # the fifth stands in the second row


def test_names_are_drawn_as_they_are():
    """Dollar signs would start formulas, and long names leave no room; warnings are errors here."""
    matrix = np.array([[3, 1, 0], [0, 4, 0], [0, 0, 2]])
    plain = draw_confusion({"a": matrix}, ["one", "two", "three"])
    for names in (["$5-$10", "a$_$", "b"], ["x" * 75] * 3, ["\u732b", "\u72ac", "\u9ce5"]):
        image = draw_confusion({"a": matrix}, names)
        assert abs(image.shape[1] - plain.shape[1]) <= 1
        assert np.ptp(image) > 100
    draw_captioned([tf.io.encode_png(np.zeros((8, 8, 1), np.uint8)).numpy()], ["$_$ and $"])

"""The toy whose best shape is known: what its construction claims, and that the search finds it."""

import numpy as np
import pytest

from benchmarks.toy_search import (
    MARGINS,
    NEAR,
    ROWS,
    TOLERANCE,
    draw_images,
    is_answer,
    known_answer,
    make_shape,
    make_space,
    make_task,
    random_shapes,
    search,
)
from tas_tf.cost.cost_model import CostModel
from tas_tf.space.shape import Shape
from tas_tf.student.build import build_student


@pytest.fixture(scope="module")
def space():
    return make_space()


def test_the_space_is_what_the_answer_is_given_in(space):
    assert {unit.name for unit in space.searched_units} == {"inner1", "inner2", "inner3", "mixer", "reader"}
    assert [stage.candidates for stage in space.stages] == [(1, 2, 3)]
    known, full = known_answer(space), Shape.full(space)
    assert {unit.name: known.widths[unit.name] / full.widths[unit.name] for unit in space.searched_units} == {
        **dict.fromkeys(("inner1", "inner2", "inner3", "mixer"), 0.3),
        "reader": 1.0,
    }
    assert is_answer(known, space)
    assert not is_answer(full, space)
    assert not is_answer(make_shape(space, depth=2, reader=6), space)
    assert not is_answer(make_shape(space, depth=3, reader=8), space)
    assert not is_answer(make_shape(space, depth=2, reader=8, inner2=8), space)


def test_labels_say_what_the_images_show():
    images, labels = draw_images(300, 5)
    bright = (images[:, 1:, :, 0] == 255).all(-1)
    assert (bright.sum(1) == 2).all()
    first, last = bright.argmax(1) + 1, ROWS - 1 - bright[:, ::-1].argmax(1)
    np.testing.assert_array_equal(last - first == NEAR, labels % 2 == 1)
    assert first.min() >= MARGINS[0]
    assert last.max() < ROWS - MARGINS[1]
    assert (last - first)[labels % 2 == 0].min() > 6  # beyond what three blocks see
    by_code = np.stack([images[labels // 2 == code, 0, :, 0].mean(0) for code in range(8)]) > 128
    differing = (by_code[:, None] != by_code[None]).sum(-1)
    np.testing.assert_array_equal(differing, 4 * (1 - np.eye(8)))  # a simplex: all alike far apart


def test_one_block_cannot_tell_near_from_far_whatever_its_weights(space):
    """Two images that differ in the lines' distance alone, on random networks."""
    code = np.random.default_rng(0).integers(0, 256, 7)
    pair = np.zeros((2, ROWS, 7, 1), "float32")
    pair[:, 0, :, 0] = code / 128
    for image, rows in zip(pair, ((4, 4 + NEAR), (3, 11)), strict=True):
        image[list(rows)] = 2
    for seed in range(3):
        rng = np.random.default_rng(seed)
        gaps = {}
        for depth in (1, 2):
            student = build_student(space, make_shape(space, depth=depth, reader=8, inner1=40, mixer=20), logits=True)
            for weight in student.weights:
                values = rng.normal(size=weight.shape)
                weight.assign(np.abs(values) + 0.5 if weight.name == "moving_variance" else values)
            near, far = student(pair).numpy()
            gaps[depth] = np.abs(near - far).max() / np.abs(near).max()
        assert gaps[1] < 1e-5
        assert gaps[2] > 1e-3


def test_random_shapes_cost_the_same_and_are_others(space):
    cost, shapes = CostModel(space), random_shapes(space, 100)
    limit = cost(known_answer(space))
    assert all(limit - TOLERANCE * cost.full <= cost(shape) <= limit for shape in shapes)
    assert sum(is_answer(shape, space) for shape in shapes) <= 2


@pytest.mark.slow
def test_the_search_finds_the_known_shape(space):
    """With one seed; the benchmark has them all."""
    result = search(space, make_task(2), 2)
    assert is_answer(result.shape, space)
    assert result.metrics["shape_macs"] == CostModel(space)(known_answer(space))

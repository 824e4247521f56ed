"""Which images each training sees."""

import numpy as np
import pytest
import tensorflow as tf

from tas_tf.data.augmentation import Augmentation
from tas_tf.data.preprocessing import Preprocessing
from tas_tf.data.resizing import central_view
from tas_tf.data.source import make_array_source
from tas_tf.data.task import Task
from tas_tf.errors import UserError


@pytest.fixture
def task(small_source) -> Task:
    """50 images, pixel [0, 0, 0] of each its number."""
    return Task(
        source=small_source, preprocessing=Preprocessing("none"), augment=Augmentation(), indices=np.arange(50), seed=3
    )


def numbers(images) -> list[int]:
    return np.array(images)[:, 0, 0, 0].astype(int).tolist()


@pytest.mark.parametrize("share", [0.5, 0.7])
def test_halves_are_disjoint_stratified_and_fixed(task, share):
    weights, architecture = task.halves(share)
    assert sorted([*weights, *architecture]) == list(range(50))
    counts = np.bincount(task.source.labels("train")[weights])
    np.testing.assert_allclose(counts, share * np.bincount(task.source.labels("train")), atol=1)
    assert np.array_equal(weights, task.halves(share)[0])


@pytest.mark.parametrize("share", [0.5, 0.7])
def test_each_sub_step_gets_its_own_half(task, share):
    weights, architecture = task.halves(share)
    dataset, steps = task.searching(7, share)
    assert steps == min(len(weights), len(architecture)) // 7
    seen = [set(), set()]
    for pair in dataset(0).take(6 * steps).as_numpy_iterator():
        for part, (images, labels) in zip(seen, pair, strict=True):
            part |= set(numbers(images))
            assert np.array_equal(np.array(numbers(images)) % 4, labels)
    assert seen[0] <= set(weights)
    assert seen[1] <= set(architecture)
    assert len(seen[1]) == len(architecture)  # over epochs all of them


def test_a_later_epoch_is_what_an_uninterrupted_run_gets(task):
    for dataset, steps in (task.training(8), task.searching(8)):
        whole = [numbers(_first(batch)) for batch in dataset(0).take(4 * steps)]
        late = [numbers(_first(batch)) for batch in dataset(2).take(2 * steps)]
        assert whole[2 * steps :] == late
        assert whole[:steps] != late[:steps]


def _first(batch):
    return batch[0][0] if isinstance(batch[0], tuple) else batch[0]


def test_all_training_images_are_used(task):
    dataset, steps = task.training(10)
    seen = [number for images, _ in dataset(0).take(steps) for number in numbers(images)]
    assert sorted(seen) == list(range(50))


def test_plain_images_and_test_images_come_once_in_order(task):
    assert [number for images, _ in task.plain(np.array([3, 9, 20])) for number in numbers(images)] == [3, 9, 20]
    assert [number for images, _ in task.test() for number in numbers(images)] == list(range(11))


def test_test_images_in_memory(task):
    images, labels = task.test_arrays()
    assert numbers(images) == list(range(11))
    assert labels.tolist() == [number % 4 for number in range(11)]
    images, labels = task.test_arrays(limit=8, raw=True)
    assert images.dtype == np.uint8
    assert np.bincount(labels).tolist() == [2, 2, 2, 2]
    assert numbers(images) == sorted(numbers(images))


def test_training_images_in_memory(small_source):
    preprocessing, augment = Preprocessing("scale_0_1"), Augmentation(pad_crop=2, flip=True)
    used = np.arange(1, 41)  # ten of each class
    task = Task(source=small_source, preprocessing=preprocessing, augment=augment, indices=used, seed=3)
    images = task.train_images(12)
    assert images.dtype == np.float32
    chosen = np.round(images[:, 0, 0, 0] * 255).astype(int)
    assert set(chosen) <= set(used)
    assert np.bincount(chosen % 4).tolist() == [3, 3, 3, 3]
    # As they are, not shifted, not mirrored; the same ones each time, and as pixels.
    np.testing.assert_allclose(images, small_source.images("train")[chosen] / 255, atol=1e-6)
    raw = task.train_images(12, raw=True)
    assert raw.dtype == np.uint8
    np.testing.assert_array_equal(raw, small_source.images("train")[chosen])
    assert sorted(numbers(task.train_images(1000, raw=True))) == used.tolist()


def test_a_limit_takes_a_fixed_stratified_part():
    tasks = [Task.load("digits", train_limit=100, seed=seed) for seed in (0, 1)]
    assert np.array_equal(tasks[0].indices, tasks[1].indices)  # runs of other seeds see the same images
    counts = np.bincount(tasks[0].source.labels("train")[tasks[0].indices])
    assert counts.tolist() == [10] * 10
    halves = tasks[0].halves()
    assert set(halves[0]) | set(halves[1]) == set(tasks[0].indices)
    images = np.concatenate([batch for batch, _ in tasks[0].plain(tasks[0].indices).as_numpy_iterator()])
    assert abs(images.mean()) < 1e-4  # normalised by what is used, not by all


def test_all_that_isnt_augmented_shows_the_same_centre(small_source):
    """Scores, recalibration, int8 calibration and exported files see one and the same part of an image."""
    images = np.stack([np.array(tf.image.resize(image, [5, 5])) for image in small_source.images("train")])
    images = images.astype(np.uint8)
    labels = small_source.labels("train")
    source = make_array_source("square", "abcd", train=(images, labels), test=(images, labels), flip_ok=True)
    options = {"source": source, "preprocessing": Preprocessing("none"), "augment": Augmentation(flip=True)}
    task = Task(**options, indices=np.arange(50), seed=3, test_resize=7)
    expected = np.stack([central_view(tf.constant(image), (5, 5), first=7) for image in images])
    assert not np.array_equal(expected, images)
    everything = np.arange(50)
    for found in (
        np.concatenate([batch for batch, _ in task.test().as_numpy_iterator()]),
        np.concatenate([batch for batch, _ in task.plain(everything).as_numpy_iterator()]),
        task.test_arrays()[0],
        task.test_arrays(raw=True)[0],
    ):
        np.testing.assert_array_equal(found, expected)
    contents = {image.tobytes() for image in expected}
    assert {image.tobytes() for image in task.train_images(8, raw=True)} <= contents
    for dataset in (task.shuffled(everything, 10, 5), task.held_out(0.5, 10)):
        for batch, _ in dataset.as_numpy_iterator():
            assert {image.astype(np.uint8).tobytes() for image in batch} <= contents
    # Training images keep their borders.
    batch, _ = next(task.training(10)[0](0).as_numpy_iterator())
    whole = {image.tobytes() for image in (*images, *images[:, :, ::-1])}
    assert {image.astype(np.uint8).tobytes() for image in batch} <= whole


def test_views_and_colours_that_do_not_fit(small_source):
    with pytest.raises(UserError, match=r"`test_resize` must be at least .* Received: 7 for images of 8x8"):
        Task.load("digits", test_resize=7)
    with pytest.raises(UserError, match=r"which must be square. Received: 9 for images of 6x5"):
        Task(small_source, Preprocessing("none"), Augmentation(), np.arange(50), 3, test_resize=9)
    for changes in ({"color_jitter": (0.4, 0.4, 0.4, 0.2)}, {"lighting": 0.1}):
        with pytest.raises(UserError, match="are for images of 3 channels"):
            Task.load("digits", **changes)
    assert Task.load("digits", test_resize=9).test_resize == 9


@pytest.mark.parametrize(
    ("limit", "expected"), [(9, "from 10, .* to 1437"), (1438, "from 10, .* to 1437"), (0, "at least 1")]
)
def test_limits_that_make_no_sense(limit, expected):
    with pytest.raises(UserError, match=f"`train_limit` must be {expected}"):
        Task.load("digits", train_limit=limit)


@pytest.mark.parametrize("batch_size", [0, 26, 51])
def test_batches_that_do_not_fit(task, batch_size):
    with pytest.raises(UserError, match="`batch_size` doesn't fit"):
        task.searching(batch_size)


def test_digits_are_never_mirrored():
    assert not Task.load("digits", flip=True).augment.flip

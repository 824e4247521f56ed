import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tas_tf.data.augmentation import Augmentation
from tas_tf.data.pipeline import epochs, evaluation, paired_epochs
from tas_tf.data.preprocessing import Preprocessing
from tas_tf.data.source import make_array_source
from tas_tf.errors import UserError

_PLAIN = Preprocessing("none")
_STANDARD = Augmentation(pad_crop=2, flip=True)


def _take(dataset, count):
    images, labels = zip(*dataset.take(count).as_numpy_iterator(), strict=True)
    return np.array(images), np.array(labels)


def _numbers(images):
    """The examples' numbers: their first pixel, where nothing was changed."""
    return images[..., 0, 0, 0].astype(int)


_COLOURS = {"color_jitter": (0.4, 0.4, 0.4, 0.2), "lighting": 0.1}


@pytest.mark.parametrize(
    "augment",
    [
        None,
        _STANDARD,
        pytest.param(Augmentation(random_resized_crop=True), marks=pytest.mark.slow),
        Augmentation(random_resized_crop=True, **_COLOURS),
    ],
)
def test_an_epoch_is_a_function_of_seed_and_number(small_source, augment):
    make = {"batch_size": 8, "preprocessing": Preprocessing.fit(small_source, "standardise"), "augment": augment}
    images, labels = _take(epochs(small_source, **make, seed=5), 24)
    again, _ = _take(epochs(small_source, **make, seed=5), 24)
    assert np.array_equal(images, again)
    for first_epoch in (1, 3):
        rest, rest_labels = _take(epochs(small_source, **make, seed=5, first_epoch=first_epoch), 6)
        assert np.array_equal(rest, images[6 * first_epoch :][:6])
        assert np.array_equal(rest_labels, labels[6 * first_epoch :][:6])
    other, _ = _take(epochs(small_source, **make, seed=6), 6)
    assert not np.array_equal(other, images[:6])
    assert not np.array_equal(images[:6], images[6:12])


@pytest.mark.parametrize("first_step", [2, 6, 14])
def test_batches_are_left_out_as_if_they_had_been_read(small_source, first_step):
    """Also more of them than the six of an epoch."""
    options = {"batch_size": 8, "preprocessing": _PLAIN, "augment": _STANDARD, "seed": 5, "first_epoch": 1}
    whole, rest = epochs(small_source, **options), epochs(small_source, **options, first_step=first_step)
    for one, other in zip(_take(whole.skip(first_step), 8), _take(rest, 8), strict=True):
        np.testing.assert_array_equal(one, other)
    halves = np.arange(20), np.arange(20, 50)
    whole = paired_epochs(small_source, *halves, **options).skip(first_step).take(5)
    rest = paired_epochs(small_source, *halves, **options, first_step=first_step).take(5)
    for one, other in zip(whole.as_numpy_iterator(), rest.as_numpy_iterator(), strict=True):
        for ours, theirs in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_each_epoch_holds_every_index_once(small_source):
    indices = np.arange(5, 45)
    images, labels = _take(epochs(small_source, indices, batch_size=10, preprocessing=_PLAIN), 12)
    numbers = _numbers(images)
    for epoch in range(3):
        assert np.array_equal(np.sort(numbers[4 * epoch : 4 * epoch + 4].ravel()), indices)
    assert np.array_equal(labels, numbers % 4)
    assert np.array_equal(images.reshape(-1, 6, 5, 3), small_source.images("train")[numbers.ravel()])


def test_remainders_are_dropped_and_differ_between_epochs(small_source):
    dropped = epochs(small_source, batch_size=16, preprocessing=_PLAIN)
    assert dropped.element_spec[0].shape == (16, 6, 5, 3)
    assert dropped.element_spec[1] == tf.TensorSpec([16], tf.int64)
    left_out = [set(range(50)) - set(_numbers(_take(dropped.skip(3 * e), 3)[0]).ravel()) for e in range(3)]
    assert [len(numbers) for numbers in left_out] == [2, 2, 2]
    assert len(set.union(*left_out)) > 2


def test_padding_is_black_before_normalisation(small_source):
    preprocessing = Preprocessing.fit(small_source, "standardise")
    dataset = epochs(small_source, batch_size=50, preprocessing=preprocessing, augment=_STANDARD)
    images = _take(dataset, 1)[0].reshape(-1, 3)
    black = -np.array(preprocessing.mean) / np.array(preprocessing.std)
    share = np.mean(np.all(np.abs(images - black) < 1e-5, axis=1))
    # Shifts of up to 2 pixels move 1.2 of 6 rows and of 5 columns out of sight on average.
    assert abs(share - (1 - (1 - 1.2 / 6) * (1 - 1.2 / 5))) < 0.08


def test_colours_change_image_by_image():
    """All pixels of an image by one amount, which differs from image to image, where the draw is of lighting alone."""
    grey = np.full((50, 6, 5, 3), 128, np.uint8)
    labels = np.arange(50) % 4
    source = make_array_source("grey", "abcd", train=(grey, labels), test=(grey, labels), flip_ok=True)
    augment = Augmentation(pad_crop=1, lighting=0.5)
    ((images, _),) = epochs(source, batch_size=50, preprocessing=_PLAIN, augment=augment).take(1).as_numpy_iterator()
    colours = [
        {tuple(pixel) for pixel in image.reshape(-1, 3)} - {(0, 0, 0)} for image in images
    ]  # padding stays black
    assert {len(found) for found in colours} == {1}
    assert len(set.union(*colours)) > 30


def test_the_centre_of_larger_images_is_what_is_evaluated():
    rng = np.random.default_rng(3)
    images, labels = rng.integers(0, 256, (5, 8, 8, 3)).astype(np.uint8), np.zeros(5, np.int64)
    source = make_array_source("square", "ab", train=(images, labels), test=(images, labels), flip_ok=True)
    expected = [np.round(np.array(tf.image.resize(image, [11, 11], antialias=True)))[1:9, 1:9] for image in images]
    for split in ("train", "test"):
        dataset = evaluation(source, split, batch_size=2, preprocessing=_PLAIN, test_resize=11)
        assert dataset.element_spec[0].shape == (None, 8, 8, 3)
        found = np.concatenate([batch for batch, _ in dataset.as_numpy_iterator()])
        np.testing.assert_allclose(found, expected, atol=1)  # halves may be rounded either way
    shuffled = _take(epochs(source, batch_size=5, preprocessing=_PLAIN, test_resize=11), 1)[0][0]
    differences = np.abs(shuffled[:, np.newaxis] - np.stack(expected)).max(axis=(2, 3, 4))
    assert sorted(differences.argmin(axis=1)) == list(range(5))
    assert differences.min(axis=1).max() <= 1


def test_evaluation_keeps_order_and_the_last_batch(small_source):
    preprocessing = Preprocessing.fit(small_source, "standardise")
    batches = list(evaluation(small_source, "test", batch_size=4, preprocessing=preprocessing).as_numpy_iterator())
    assert [len(labels) for _, labels in batches] == [4, 4, 3]
    assert np.array_equal(np.concatenate([labels for _, labels in batches]), small_source.labels("test"))
    expected = (small_source.images("test") - np.array(preprocessing.mean)) / np.array(preprocessing.std)
    assert np.allclose(np.concatenate([images for images, _ in batches]), expected, atol=1e-5)


def test_evaluation_of_some(small_source):
    dataset = evaluation(small_source, "train", [8, 2, 31], batch_size=2, preprocessing=_PLAIN)
    assert [_numbers(images.numpy()).tolist() for images, _ in dataset] == [[8, 2], [31]]


def test_pairs_come_from_their_halves_and_epochs_end_together(small_source):
    weights, arch = np.arange(30), np.arange(30, 50)
    make = {"batch_size": 6, "preprocessing": _PLAIN, "seed": 2}
    steps = 3  # of the smaller half
    dataset = paired_epochs(small_source, weights, arch, **make)
    pairs = [[(_numbers(x.numpy()), y.numpy()) for x, y in pair] for pair in dataset.take(3 * steps)]
    for (numbers_w, labels_w), (numbers_a, labels_a) in pairs:
        assert np.all(numbers_w < 30)
        assert np.all(numbers_a >= 30)
        assert np.array_equal(labels_w, numbers_w % 4)
        assert np.array_equal(labels_a, numbers_a % 4)
    for half in range(2):
        for epoch in range(3):
            numbers = np.concatenate([pair[half][0] for pair in pairs[steps * epoch :][:steps]])
            assert len(set(numbers.tolist())) == 6 * steps
    resumed = paired_epochs(small_source, weights, arch, **make, first_epoch=2)
    for pair, expected in zip(resumed.take(steps), pairs[2 * steps :], strict=True):
        for (images, _), (numbers, _) in zip(pair, expected, strict=True):
            assert np.array_equal(_numbers(images.numpy()), numbers)


def test_replicas_share_each_batch(small_source, two_replicas):
    make = {"batch_size": 8, "preprocessing": _PLAIN, "augment": _STANDARD, "seed": 3}
    halves = (np.arange(30), np.arange(30, 50))
    expected = paired_epochs(small_source, *halves, **make).take(6)
    distributed = two_replicas.experimental_distribute_dataset(paired_epochs(small_source, *halves, **make))
    for whole, shared in zip(expected, distributed, strict=False):
        for (images, labels), (per_replica_images, per_replica_labels) in zip(whole, shared, strict=True):
            parts = two_replicas.experimental_local_results(per_replica_images)
            assert [part.shape[0] for part in parts] == [4, 4]
            assert np.array_equal(np.concatenate(parts), images)
            parts = two_replicas.experimental_local_results(per_replica_labels)
            assert np.array_equal(np.concatenate(parts), labels)


def test_sharding_is_by_data(small_source):
    for dataset in (
        epochs(small_source, batch_size=8, preprocessing=_PLAIN),
        evaluation(small_source, "test", batch_size=8, preprocessing=_PLAIN),
        paired_epochs(small_source, np.arange(30), np.arange(30, 50), batch_size=8, preprocessing=_PLAIN),
    ):
        policy = dataset.options().experimental_distribute.auto_shard_policy
        assert policy == tf.data.experimental.AutoShardPolicy.DATA
        assert dataset.options().deterministic


@pytest.mark.parametrize("batch_size", [0, 51])
def test_batch_size_out_of_range(small_source, batch_size):
    with pytest.raises(UserError, match=r"`batch_size` doesn't fit.*Expected 1 to 50"):
        epochs(small_source, batch_size=batch_size, preprocessing=_PLAIN)


def test_batch_size_beyond_the_smaller_half(small_source):
    with pytest.raises(UserError, match="Expected 1 to 20"):
        paired_epochs(small_source, np.arange(30), np.arange(30, 50), batch_size=25, preprocessing=_PLAIN)


def test_indices_out_of_range(small_source):
    with pytest.raises(UserError, match=r"`indices` are out of range. Expected 0 to 49. Received: 2 to 50"):
        epochs(small_source, np.array([2, 50]), batch_size=1, preprocessing=_PLAIN)


def test_unknown_split(small_source):
    with pytest.raises(UserError, match='Expected "train" or "test"'):
        evaluation(small_source, "validation", batch_size=8, preprocessing=_PLAIN)


#: Prints the megabytes that a pipeline takes beyond the tensors that it reads.
MEASURE = """
import sys
import numpy as np
from tas_tf.data.pipeline import epochs, paired_epochs
from tas_tf.data.preprocessing import Preprocessing
from tas_tf.data.source import make_array_source

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6

images, labels = np.ones((4000, 160, 160, 3), np.uint8), np.arange(4000) % 10
source = make_array_source("a", list("0123456789"), train=(images, labels), test=(images[:1], labels[:1]), flip_ok=True)
options = {"batch_size": 16, "preprocessing": Preprocessing.fit(source, "scale_0_1", indices=np.arange(10))}
source.tensors
before, most, rows = resident(), 0, np.arange(4000)
pairs = paired_epochs(source, rows[::2], rows[1::2], **options)
for batches in (epochs(source, **options) if sys.argv[1] == "epochs" else pairs).take(20):
    most = max(most, resident())
print(most - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc to read the memory of a process")
@pytest.mark.parametrize("kind", ["epochs", "pairs"])
def test_pipelines_read_images_in_memory_without_a_copy(kind):
    done = subprocess.run([sys.executable, "-c", MEASURE, kind], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.5 * 4000 * 160 * 160 * 3 / 1e6

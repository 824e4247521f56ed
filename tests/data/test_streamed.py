"""Training, search and scores on a user's own data."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tas_tf.data import survey
from tas_tf.data.augmentation import Augmentation
from tas_tf.data.form import Form
from tas_tf.data.streamed import StreamedData, open_data
from tas_tf.errors import UserError
from tas_tf.objectives.classification import Classification
from tests.parts import slow_except

COUNT = 120
NUMBERS = np.arange(COUNT)
#: Pixel [0, 0, 0] is the image's number.
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, 6, 5, 1)).astype(np.float32)
IMAGES[:, 0, 0, 0] = NUMBERS
LABELS = np.where(NUMBERS % 5 == 0, 2, NUMBERS % 2)


def dataset(images=IMAGES, labels=LABELS) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((images, labels))


def shuffled() -> tf.data.Dataset:
    """Comes in another order each time."""
    return dataset().shuffle(COUNT).batch(7)


class Batches(keras.utils.PyDataset):
    """Batches that shows the examples in an order of its own after each epoch."""

    def __init__(self, images=IMAGES, labels=LABELS):
        super().__init__()
        self.images, self.labels, self.order = images, labels, np.arange(len(images))

    def __len__(self):
        return -(-len(self.images) // 8)

    def __getitem__(self, number):
        rows = self.order[8 * number : 8 * number + 8]
        return self.images[rows], self.labels[rows]

    def on_epoch_end(self):
        self.order = np.random.default_rng(5).permutation(self.order)


class FixedBatches(Batches):
    """Without anything that changes it."""

    on_epoch_end = keras.utils.PyDataset.on_epoch_end


FORMS = {"arrays": lambda: (IMAGES, LABELS), "dataset": shuffled, "PyDataset": Batches}


@pytest.fixture(params=FORMS)
def data(request) -> StreamedData:
    return make(FORMS[request.param]())


def make(train, validation=(IMAGES[:30], LABELS[:30]), **options) -> StreamedData:
    return open_data(train, validation, **{"form": Form.of_images(6, 5, 1), "objective": Classification(3), **options})


def numbers(images) -> list[int]:
    return [int(image[0, 0, 0]) for image in np.asarray(images)]


def take(batches: tf.data.Dataset, count: int) -> list:
    return list(batches.take(count).as_numpy_iterator())


def test_what_is_counted(data):
    assert (data.num_train, data.image_shape, data.class_names) == (COUNT, (6, 5, 1), ("0", "1", "2"))
    assert data.chance == np.bincount(LABELS[:30]).max() / 30


def test_an_epoch_of_training_shows_each_image_once_as_it_is(data):
    batches, steps = data.training(8)
    assert steps == COUNT // 8
    epoch = take(batches(0), 2 * steps)
    for images, labels in epoch:
        assert (images.shape, images.dtype, labels.dtype) == ((8, 6, 5, 1), np.float32, np.int64)
        for image, label, number in zip(images, labels, numbers(images), strict=True):
            np.testing.assert_array_equal(image, IMAGES[number])
            assert label == LABELS[number]
    orders = [[number for images, _ in part for number in numbers(images)] for part in (epoch[:steps], epoch[steps:])]
    assert [sorted(order) for order in orders] == [NUMBERS.tolist()] * 2
    assert orders[0] != orders[1]


def test_epochs_have_orders_of_their_own_wherever_training_begins(data):
    """The first batches of a brief training aren't those of another that begins later."""
    dataset, _ = data.training(40)
    firsts = [numbers(next(dataset(epoch).as_numpy_iterator())[0]) for epoch in (0, 1, 5)]
    assert len({tuple(first) for first in firsts}) == 3


REPEATED = {
    "arrays": lambda: (IMAGES, LABELS),
    "dataset": lambda: dataset().shuffle(COUNT, reshuffle_each_iteration=False).batch(7),
    "PyDataset": FixedBatches,
}


@pytest.mark.parametrize("part", ["training", "searching", "weights"])
@pytest.mark.parametrize("form", REPEATED)
def test_an_epoch_is_the_same_wherever_training_begins(form, part):
    """A resumed run reads what the uninterrupted one reads, whatever has been read before, and whatever the seeds."""
    data = make(REPEATED[form](), augment=Augmentation(pad_crop=1))
    data = data.weights_part(0.7) if part == "weights" else data
    batches, steps = data.searching(7) if part == "searching" else data.training(7)
    assert data.num_train % 7 or part == "searching"  # what is beyond the last batch isn't carried over
    keras.utils.set_random_seed(5)
    whole = take(batches(0), 3 * steps)
    firsts = [tf.nest.flatten(whole[epoch * steps])[0] for epoch in range(3)]
    assert len({images.max(axis=(1, 2, 3)).tobytes() for images in firsts}) == 3
    keras.utils.set_random_seed(0)
    for start in ((1, 0), (2, 0), (1, 2), (0, steps + 3)):
        first = start[0] * steps + start[1]
        later = take(batches(*start), 3 * steps - first)
        for one, other in zip(tf.nest.flatten(whole[first:]), tf.nest.flatten(later), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("share", slow_except([0.5, 0.75], [0.75]))
def test_the_parts_of_a_search_stay_apart_epoch_after_epoch(data, share):
    batches, steps = data.searching(5, share)
    pairs = take(batches(0), 4 * steps)
    seen = [{number for pair in pairs for number in numbers(pair[part][0])} for part in (0, 1)]
    assert not seen[0] & seen[1]
    for pair in pairs:
        for images, labels in pair:
            assert images.shape == (5, 6, 5, 1)
            np.testing.assert_array_equal(labels, LABELS[numbers(images)])
    first, second = data.weights_part(share).num_train, COUNT - data.weights_part(share).num_train
    assert steps == min(first, second) // 5
    assert abs(first - share * COUNT) < 4 * np.sqrt(COUNT * share * (1 - share))
    # In four epochs hardly an image of the smaller part is left out, and none of the held-out ones trains weights.
    assert len(seen[1]) > 0.8 * second
    held_out = {number for images, _ in data.held_out(share, COUNT) for number in numbers(images)}
    assert len(held_out) == second
    assert held_out >= seen[1]


def test_the_weights_part_trains_and_calibrates_on_itself_alone(data):
    part = data.weights_part(0.5)
    held_out = {number for images, _ in data.held_out(0.5, COUNT) for number in numbers(images)}
    batches, steps = part.training(6)
    trained = {number for images, _ in take(batches(0), 2 * steps) for number in numbers(images)}
    calibrated = {number for images, _ in part.calibration(4, 5) for number in numbers(images)}
    assert not (trained | calibrated) & held_out
    assert len(calibrated) == 20
    assert [len(labels) for _, labels in part.calibration(1000, 5)] == [part.num_train]


def test_images_for_scores_and_the_limit_of_held_out_ones(data):
    images, labels = (np.concatenate(part) for part in zip(*data.test().as_numpy_iterator(), strict=True))
    assert sorted(numbers(images)) == list(range(30))
    np.testing.assert_array_equal(labels, LABELS[numbers(images)])
    assert sum(len(labels) for _, labels in data.held_out(0.5, 11)) == 11
    assert make((IMAGES, LABELS), None).test() is None


@pytest.mark.parametrize(
    "labels",
    [np.eye(3)[LABELS], LABELS[:, None].astype("float32"), np.array(["ant", "bee", "cat"])[LABELS], LABELS % 3 == 1],
    ids=["one-hot", "column", "texts", "bool"],
)
@pytest.mark.parametrize("form", [lambda *parts: parts, lambda *parts: dataset(*parts).batch(9)], ids=["arrays", "set"])
def test_labels_of_every_kind_become_class_numbers(form, labels):
    found = make(form(IMAGES, labels), form(IMAGES[:30], labels[:30]))
    expected = LABELS == 1 if labels.dtype == bool else LABELS
    for batches in (found.calibration(COUNT, 1), found.test()):
        for images, given in batches:
            np.testing.assert_array_equal(given, expected[numbers(images)])
    assert found.class_names == (("ant", "bee", "cat") if labels.dtype.kind == "U" else ("0", "1", "2"))


def test_names_that_keras_gives_to_a_dataset_are_kept():
    train = shuffled()
    train.class_names = ["ant", "bee", "cat"]
    assert make(train).class_names == ("ant", "bee", "cat")


def test_augmentation_differs_from_step_to_step_and_leaves_scores_alone():
    pixels = np.full((20, 6, 5, 1), 200, np.uint8)
    pixels += NUMBERS[:20, None, None, None].astype(np.uint8)
    found = make((pixels, LABELS[:20]), (pixels, LABELS[:20]), augment=Augmentation(pad_crop=2))
    batches, _ = found.training(20)
    first, second = (images for images, _ in take(batches(0), 2))
    assert first.dtype == np.float32
    assert not np.array_equal(first == 0, second == 0)
    assert {float(value) for value in np.unique(first)} <= {0.0, *(200.0 + NUMBERS[:20])}
    assert all((images > 0).all() for images, _ in found.test().as_numpy_iterator())
    assert take(found.searching(4)[0](0), 1)[0][1][0].shape == (4, 6, 5, 1)


@pytest.mark.parametrize(
    "change", [{"random_resized_crop": True}, {"color_jitter": (0.4, 0.4, 0.4, 0.2)}, {"lighting": 0.1}]
)
def test_changes_that_need_bytes_and_colours(change):
    images = np.repeat(IMAGES, 3, axis=-1)
    augment = Augmentation(**change)
    with pytest.raises(UserError, match=r"take uint8 images. Received images of float32 in `train`"):
        make((images, LABELS), None, form=Form.of_images(6, 5, 3), augment=augment)
    make((images.astype(np.uint8), LABELS), None, form=Form.of_images(6, 5, 3), augment=augment)
    if augment.changes_colours:
        with pytest.raises(UserError, match=r"images of 3 channels.* Received: 1 in `train`"):
            make((IMAGES.astype(np.uint8), LABELS), None, augment=augment)


def test_held_out_images_stay_the_same_ones():
    held_out = make(dataset().batch(7)).held_out(0.5, 10)
    first, second = ([number for images, _ in held_out for number in numbers(images)] for _ in range(2))
    assert first == second


NAN = IMAGES.copy()
NAN[77, 1, 1, 0] = np.nan

MISTAKES = {
    "NaN": ({"train": dataset(NAN).batch(4)}, "`train` must have finite images"),
    "NaN in validation": ({"validation": (NAN, LABELS)}, "`validation` must have finite images"),
    "empty": ({"train": dataset().take(0).batch(2)}, "`train` must be.*empty"),
    "empty arrays": ({"train": (IMAGES[:0], LABELS[:0])}, "`train` must be.*empty"),
    "filtered to nothing": ({"validation": dataset().filter(lambda image, label: label > 5)}, "`validation`.*empty"),
    "forever": (
        {"train": dataset().repeat().filter(lambda image, label: label < 5)},
        "repeats forever",
    ),
    "sizes": ({"train": (IMAGES[:, :5], LABELS)}, "`train` must have images of 6x5x1.*Received: 5x5x1"),
    "sizes of validation": ({"validation": (IMAGES[..., :4, :], LABELS)}, "`validation` must have images of 6x5x1"),
    "label too high": ({"train": (IMAGES, LABELS + 1)}, "`train` must have labels from 0 to 2.*1 to 3"),
    "negative label": ({"validation": (IMAGES, LABELS - 1)}, "`validation` must have labels from 0 to 2.*-1 to 1"),
    "fractions": ({"train": (IMAGES, LABELS + 0.5)}, "whole numbers"),
    "NaN labels": ({"train": (IMAGES, LABELS * np.nan)}, "whole numbers"),
    "one-hot of others": ({"train": (IMAGES, np.eye(5)[LABELS])}, r"one-hot ones, \[batch, 3\]"),
    "several classes": ({"train": (IMAGES, np.ones((COUNT, 3)))}, "single 1"),
    "too many names": ({"train": (IMAGES, NUMBERS.astype(str))}, "network has classes, 3. Received: 120"),
    "unknown name": (
        {
            "train": (IMAGES, np.array(["a", "b", "c"])[LABELS]),
            "validation": (IMAGES, np.array(["a", "b", "d"])[LABELS]),
        },
        "`validation` must have labels that `train` has. Received: 'd'",
    ),
    "sorted": (
        {"train": dataset(np.resize(IMAGES, (2500, 6, 5, 1)), np.sort(np.resize(LABELS, 2500))).batch(8)},
        r"sorted by class: use `shuffle\(2500\)`",
    ),
}


@pytest.mark.parametrize(("change", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_found_before_training(monkeypatch, change, message):
    monkeypatch.setattr(survey, "_MANY", 4000)  # examples from which on they may be repetitions
    with pytest.raises(UserError, match=message):
        make(**{"train": (IMAGES, LABELS), **change})


def test_two_replicas_share_each_batch(two_replicas):
    found = make(shuffled())
    for (batches, _), pairs in ((found.training(8), False), (found.searching(8), True)):
        batch = next(iter(two_replicas.experimental_distribute_dataset(batches(0))))
        images, labels = batch[1] if pairs else batch
        shares = [numbers(local) for local in two_replicas.experimental_local_results(images)]
        assert [len(share) for share in shares] == [4, 4]
        assert len({*shares[0], *shares[1]}) == 8
        given = np.concatenate(two_replicas.experimental_local_results(labels))
        np.testing.assert_array_equal(given, LABELS[[*shares[0], *shares[1]]])


@pytest.mark.parametrize("batch_size", [0, COUNT])
def test_batches_have_to_fit(data, batch_size):
    with pytest.raises(UserError, match="`batch_size` doesn't fit"):
        data.searching(batch_size)


def change(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return images + tf.random.uniform([]), labels


def test_random_changes_that_are_cached_are_warned_of():
    with pytest.warns(UserWarning, match="`train` changes images at random and then caches them"):
        make(shuffled().map(change).cache())
    with pytest.warns(UserWarning, match="`train` gives other images each time"):
        make(shuffled().cache().map(change))
    drawn = np.random.default_rng(0)

    def unseen(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        draw = tf.numpy_function(lambda: np.float32(drawn.random()), [], tf.float32)
        return images + tf.ensure_shape(draw, []), labels

    with pytest.warns(UserWarning, match="`train` gives other images each time"):
        make(shuffled().map(unseen))


def test_images_that_stay_the_same_give_no_warning(recwarn):
    make(shuffled().cache().prefetch(2))
    make((IMAGES, LABELS))
    make(Batches(IMAGES, LABELS))
    # Where no part is held out, images may change.
    open_data(shuffled().map(change), form=Form.of_images(6, 5, 1), objective=Classification(3), divided=False)
    assert not recwarn.list


@pytest.mark.parametrize("mode", ["int", "categorical"])
@pytest.mark.parametrize("batch_size", [4, None])
def test_keras_s_folders_in_label_modes_of_single_labels(tmp_path, mode, batch_size):
    for name, grey in (("ant", 10), ("bee", 90), ("cat", 170)):
        (tmp_path / name).mkdir()
        for number in range(4):
            Image.fromarray(np.full((6, 5), grey + number, np.uint8)).save(tmp_path / name / f"{number}.png")
    options = {"image_size": (6, 5), "color_mode": "grayscale", "seed": 1, "verbose": False}
    train = keras.utils.image_dataset_from_directory(
        tmp_path, label_mode=mode, batch_size=batch_size, validation_split=0.25, subset="training", **options
    )
    whole = keras.utils.image_dataset_from_directory(tmp_path, label_mode=mode, batch_size=batch_size, **options)
    scaled = train.map(lambda images, labels: (images / 255, labels)).prefetch(1)
    found = make(scaled, whole)
    assert found.class_names == ("ant", "bee", "cat")
    assert (found.num_train, sum(len(labels) for _, labels in found.test())) == (9, 12)
    for images, labels in found.calibration(9, 1):
        np.testing.assert_array_equal(labels, images[:, 0, 0, 0].numpy() * 255 // 80)


@pytest.mark.parametrize("form", [lambda *parts: parts, lambda *parts: dataset(*parts).shuffle(200, seed=1).batch(9)])
def test_grey_images_may_lack_their_channel(form):
    """As Keras loads MNIST."""
    for images, labels in make(form(IMAGES[..., 0], LABELS)).calibration(COUNT, 1):
        np.testing.assert_array_equal(images, IMAGES[numbers(images)])
        np.testing.assert_array_equal(labels, LABELS[numbers(images)])


@pytest.mark.parametrize("labels", [LABELS, LABELS[:, None], np.eye(3, dtype="float32")[LABELS]])
def test_a_pydataset_with_labels_of_each_form(labels):
    found = make(Batches(IMAGES, labels), Batches(IMAGES[:30], labels[:30]))
    assert found.num_train == COUNT
    for images, given in found.test():
        np.testing.assert_array_equal(given, LABELS[numbers(images)])

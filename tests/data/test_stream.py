"""A user's own images and labels: every form of them arrives, and nothing is copied whole."""

import gc

import keras
import numpy as np
import pytest
import tensorflow as tf

from tas_tf.data.form import Form
from tas_tf.data.stream import open_stream
from tas_tf.errors import UserError

IMAGES = np.random.default_rng(0).normal(size=(10, 4, 5, 3)).astype("float32")
LABELS = np.arange(10) % 3
FORM = Form.of_images(None, None, None)


class Batches(keras.utils.PyDataset):
    """Batches of four; counts what Keras would call."""

    def __init__(self, images=IMAGES, labels=LABELS, **more):
        super().__init__(**more)
        self.images, self.labels, self.began, self.ended = images, labels, 0, 0

    def __len__(self):
        return -(-len(self.images) // 4)

    def __getitem__(self, number):
        chosen = slice(4 * number, 4 * number + 4)
        return self.images[chosen], self.labels[chosen]

    def on_epoch_begin(self):
        self.began += 1

    def on_epoch_end(self):
        self.ended += 1


def dataset(images=IMAGES, labels=LABELS) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((images, labels))


def read(data, *, training: bool = False) -> tuple[np.ndarray, list]:
    """Images and labels in the order of the images' first pixels."""
    images, labels = zip(
        *open_stream("train", data, FORM).examples(0 if training else None).as_numpy_iterator(), strict=True
    )
    order = np.argsort([image[0, 0, 0] for image in images])
    return np.stack(images)[order], [labels[number] for number in order]


FORMS = {
    "single": dataset(),
    "batches": dataset().batch(4),
    "float64": dataset(IMAGES.astype("float64")).batch(4),
    "arrays": (IMAGES, LABELS),
    "lists": [IMAGES.tolist(), LABELS.tolist()],
    "PyDataset": Batches(),
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("data", FORMS.values(), ids=FORMS)
def test_images_and_labels_arrive(data, training):
    images, labels = read(data, training=training)
    order = np.argsort(IMAGES[:, 0, 0, 0])
    np.testing.assert_array_equal(images, IMAGES[order])
    assert labels == LABELS[order].tolist()
    assert images.dtype == np.float32


@pytest.mark.parametrize("make", [lambda *parts: parts, lambda *parts: dataset(*parts).batch(3), Batches])
def test_bytes_and_texts_stay_what_they_are(make):
    pixels = np.arange(10 * 4 * 4, dtype=np.uint8).reshape(10, 4, 4, 1)
    images, labels = read(make(pixels, np.array(["Kätzchen", "dog"] * 5)))
    np.testing.assert_array_equal(images, pixels)
    assert images.dtype == np.uint8
    assert [label.decode() for label in labels] == ["Kätzchen", "dog"] * 5


def test_arrays_come_in_another_order_in_each_epoch_of_training_alone():
    numbers = np.arange(100)
    data = (np.broadcast_to(numbers[:, None, None, None], (100, 2, 2, 1)).astype("float32"), numbers % 2)
    batches = open_stream("train", data, FORM, seed=3).batches
    orders = [
        [int(image[0, 0, 0]) for images, _ in one.as_numpy_iterator() for image in images]
        for one in (*[batches(None)] * 2, *[batches(0)] * 2, batches(1))
    ]
    assert orders[0] == orders[1] != sorted(orders[0])
    assert orders[2] == orders[3] != orders[4]
    assert [sorted(order) for order in orders] == [numbers.tolist()] * 5


def test_a_pydataset_is_told_of_epochs_of_training_alone():
    data = Batches()
    stream = open_stream("train", data, FORM)
    list(stream.batches(None))
    assert (data.began, data.ended) == (0, 0)
    sizes = [len(labels) for epoch in range(2) for _, labels in stream.batches(epoch)]
    assert (data.began, data.ended) == (2, 2)
    assert sorted(sizes) == [2, 2, 4, 4, 4, 4]


def test_arrays_are_sliced_and_batches_are_let_go(tmp_path):
    """A file of 64 MB, mapped into memory, is never read as a whole; and of a PyDataset's batches few are alive."""
    path = tmp_path / "images.npy"
    mapped = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(1024, 128, 128, 4))
    copied = []

    class Watched(np.ndarray):
        def __getitem__(self, rows):
            found = np.asarray(super().__getitem__(rows))
            copied.append(found.nbytes)
            return found

    stream = open_stream("train", (mapped.view(Watched), np.zeros(1024)), FORM)
    most = 0
    for images, _ in stream.batches(0):
        most = max(most, images.numpy().nbytes)
    assert sum(copied) == mapped.nbytes
    assert most == max(copied) <= mapped.nbytes / 8

    alive, peak = 0, 0

    class Tracked(np.ndarray):
        def __del__(self):
            nonlocal alive
            alive -= self.base is None

    class Made(Batches):
        def __len__(self):
            return 200

        def __getitem__(self, number):
            nonlocal alive, peak
            alive += 1
            peak = max(peak, alive)
            return np.ndarray.__new__(Tracked, (4, 8, 8, 1), np.float32), np.zeros(4)

    assert sum(1 for _ in open_stream("train", Made(), FORM).batches(0)) == 200
    gc.collect()
    assert peak <= 20


MISTAKES = {
    "alone": (IMAGES, "ndarray"),
    "images alone": (tf.data.Dataset.from_tensor_slices(IMAGES), "elements of TensorSpec"),
    "two images": (dataset().map(lambda image, label: ((image, image), label)), "images .* of one size"),
    "four parts": (dataset().map(lambda image, label: (image, label, label, label)), "elements of 4 parts"),
    "forever": (dataset().batch(2).repeat(), "repeats forever"),
    "no height": (dataset(IMAGES[..., 0, 0]).batch(2), r"float32 \[None, 4\]"),
    "sizes": (dataset().map(lambda image, label: (image[: label + 1], label)), "of one size"),
    "lengths": ((IMAGES, LABELS[1:]), r"\[10, 4, 5, 3\] and labels \[9\]"),
    "text as images": ((np.full((3, 2, 2, 1), "a"), LABELS[:3]), "string"),
    "no batches": (Batches(IMAGES[:0]), "empty"),
}


@pytest.mark.parametrize(("train", "message"), MISTAKES.values(), ids=MISTAKES)
def test_others_are_refused(train, message):
    with pytest.raises(UserError, match=message) as caught:
        open_stream("train", train, FORM)
    assert "`train`" in str(caught.value)

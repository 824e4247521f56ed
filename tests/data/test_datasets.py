"""Datasets of a user's own."""

import numpy as np
import pytest
import tensorflow as tf

from tas_tf.data.datasets import source_of_datasets
from tas_tf.errors import UserError

IMAGES = np.random.default_rng(0).normal(size=(10, 4, 5, 3)).astype("float32")
LABELS = np.arange(10) % 3


def dataset(images=IMAGES, labels=LABELS) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((images, labels))


@pytest.mark.parametrize(
    "train",
    [
        dataset(),
        dataset().batch(4),
        dataset(labels=np.eye(3)[LABELS]).batch(4),
        dataset(labels=np.eye(3)[LABELS]),
        dataset(labels=LABELS[:, None].astype("float32")).batch(3),
        dataset(images=IMAGES.astype("float64")).batch(4),
    ],
    ids=["single", "batches", "one-hot", "single one-hot", "column", "float64"],
)
def test_images_and_labels_arrive(train):
    source = source_of_datasets(train, dataset().batch(10), num_classes=3)
    np.testing.assert_array_equal(source.images("train"), IMAGES)
    np.testing.assert_array_equal(source.labels("train"), LABELS)
    assert (source.image_shape, source.num_classes) == ((4, 5, 3), 3)
    assert source.images("train").dtype == np.float32


def test_bytes_stay_bytes():
    images = np.arange(10 * 4 * 4 * 1).reshape(10, 4, 4, 1).astype("uint8")
    source = source_of_datasets(dataset(images).batch(3), dataset(images), num_classes=3)
    assert source.images("train").dtype == np.uint8


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (IMAGES, "ndarray"),
        (tf.data.Dataset.from_tensor_slices(IMAGES), "elements"),
        (dataset().batch(2).repeat(), "repeats for ever"),
        (dataset().take(0).batch(2), "empty"),
        (dataset(images=IMAGES[..., 0]).batch(2), r"\[10, 4, 5\]|float32"),
        (dataset(labels=LABELS + 1).batch(2), "1 to 3"),
        (dataset(labels=LABELS + 0.5).batch(2), "whole numbers"),
        (dataset(labels=LABELS.astype(str)).batch(2), "numbers"),
        (dataset(labels=np.eye(5)[LABELS]).batch(2), r"one-hot ones, \[batch, 3\]"),
        (dataset(labels=np.ones((10, 3))).batch(2), "single 1"),
        (dataset(images=IMAGES * np.nan).batch(2), "finite"),
        (dataset().map(lambda image, label: (image[: label + 1], label)), "of one size"),
    ],
    ids=str,
)
def test_others_are_refused(train, message):
    with pytest.raises(UserError, match=message) as caught:
        source_of_datasets(train, dataset(), num_classes=3)
    assert "`train`" in str(caught.value)


def test_train_and_test_have_images_of_one_size():
    with pytest.raises(UserError, match=r"`test` must have images as `train` has, \(4, 5, 3\)"):
        source_of_datasets(dataset(), dataset(images=IMAGES[:, :3]), num_classes=3)

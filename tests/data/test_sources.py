import numpy as np
import pytest

from tas_tf.data.resizing import resize_images
from tas_tf.data.source import ArraySource, looks_alike_mirrored
from tas_tf.data.sources import load_source
from tas_tf.errors import UserError


def test_digits_by_name():
    source = load_source("digits")
    assert isinstance(source, ArraySource)
    assert (source.name, source.num_train, len(source.labels("test"))) == ("digits", 1437, 360)


def test_arrays_are_read_only():
    source = load_source("digits")
    with pytest.raises(ValueError, match="read-only"):
        source.images("train")[0] = 0


@pytest.mark.parametrize(
    ("name", "mirrored"),
    [("cifar100", True), ("imagenet2012", True), ("svhn_cropped", False), ("emnist/letters", False), ("kmnist", False)],
)
def test_flips_by_name(name, mirrored):
    assert looks_alike_mirrored(name) == mirrored


def test_resizing_cuts_the_central_square_and_averages():
    images = np.zeros((1, 4, 8, 1), np.uint8)
    images[0, :, 2:6, 0] = np.kron([[10, 50], [90, 130]], np.ones((2, 2)))
    images[0, :, :2] = 255  # outside the square
    assert np.array_equal(resize_images(images, (4, 4), "crop")[0, :, :, 0], images[0, :, 2:6, 0])
    halved = resize_images(images, (2, 2), "crop")[0, :, :, 0].astype(int)
    # Antialiased: every pixel leans towards its neighbours, but keeps its order, and the mean stays.
    assert halved[0, 0] < halved[0, 1] < halved[1, 0] < halved[1, 1]
    assert abs(halved.mean() - 70) <= 1
    assert resize_images(images, None) is images


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 0}, "`image_size` is out of range"),
        ({"test_share": 1.0}, "`test_share` is out of range"),
        ({"test_share": 0.2}, "`test_share` can't be used"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(UserError, match=message):
        load_source("digits", **options)

import numpy as np
from sklearn.datasets import load_digits as sklearn_digits

from tas_tf.data.digits import load_digits


def _sorted_rows(images):
    rows = np.asarray(images).reshape(len(images), -1).astype(float)
    return rows[np.lexsort(rows.T)]


def test_contents_are_sklearns():
    source, original = load_digits(), sklearn_digits()
    assert source.image_shape == (8, 8, 1)
    assert source.num_classes == 10
    assert not source.flip_ok
    images = np.concatenate([source.images("train"), source.images("test")])
    assert images.dtype == np.uint8
    assert images.max() == 255
    # Undoing the scale gives every original cell back.
    assert np.array_equal(_sorted_rows(np.round(images * (16 / 255))), _sorted_rows(original.images))


def test_labels_belong_to_their_images():
    source, original = load_digits(), sklearn_digits()
    label_of = {image.tobytes(): label for image, label in zip(original.images, original.target, strict=True)}
    for split in ("train", "test"):
        cells = np.round(source.images(split)[..., 0] * (16 / 255))
        assert [label_of[image.tobytes()] for image in cells] == source.labels(split).tolist()


def test_split_is_stratified_80_to_20():
    source = load_digits()
    assert (source.num_train, len(source.labels("test"))) == (1437, 360)
    shares = np.bincount(source.labels("test")) / np.bincount(sklearn_digits().target)
    assert np.all(np.abs(shares - 0.2) < 0.01)


def test_resizing():
    source = load_digits(image_size=(16, 16))
    assert source.image_shape == (16, 16, 1)
    assert source.images("test").shape == (360, 16, 16, 1)

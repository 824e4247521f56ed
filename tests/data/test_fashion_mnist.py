import gzip

import numpy as np
import pytest

from tas_tf.data import fashion_mnist
from tas_tf.data.sources import load_source
from tas_tf.errors import UserError

_needs_package = pytest.mark.skipif(
    not fashion_mnist.idx_files_installed(), reason="Debian's package dataset-fashion-mnist isn't installed"
)


def test_images_and_labels_come_from_the_idx_files(fake_idx, tmp_path):
    source = load_source("fashion_mnist", data_dir=str(tmp_path / "tfds"))
    assert source.flip_ok
    assert source.class_names[9] == "Ankle boot"
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images, labels = fake_idx[f"{prefix}-images-idx3-ubyte"], fake_idx[f"{prefix}-labels-idx1-ubyte"]
        label_of = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
        assert source.images(split).shape == (len(images), 28, 28, 1)
        assert len({image.tobytes() for image in source.images(split)}) == len(images)
        assert [label_of[image.tobytes()] for image in source.images(split)] == source.labels(split).tolist()


def test_prepared_once_it_needs_the_files_no_more(fake_idx, tmp_path):
    data_dir = tmp_path / "tfds"
    first = load_source("fashion_mnist", data_dir=str(data_dir))
    assert list(data_dir.glob("fashion_mnist_idx/1.0.0/*.tfrecord*"))
    for path in fashion_mnist.IDX_DIR.iterdir():
        path.unlink()
    again = load_source("fashion_mnist", data_dir=str(data_dir))
    assert np.array_equal(first.images("train"), again.images("train"))


def test_two_processes_may_prepare_it_at_the_same_time(fake_idx, tmp_path, monkeypatch):
    prepare = fashion_mnist.FashionMnistIdx.download_and_prepare

    def overtaken(builder):
        prepare(fashion_mnist.FashionMnistIdx(data_dir=str(tmp_path)))
        raise RuntimeError("Destination already exists.")

    monkeypatch.setattr(fashion_mnist.FashionMnistIdx, "download_and_prepare", overtaken)
    source = load_source("fashion_mnist", data_dir=str(tmp_path))
    assert len(source.images("train")) == len(fake_idx["train-images-idx3-ubyte"])


@pytest.mark.parametrize("spoil", ["content", "archive", "truncated"])
def test_corrupted_files_are_refused_and_nothing_is_left(fake_idx, tmp_path, spoil):
    path = fashion_mnist.IDX_DIR / "t10k-images-idx3-ubyte.gz"
    archive = path.read_bytes()
    path.write_bytes(
        {
            "content": gzip.compress(gzip.decompress(archive)[:-1] + b"\x00"),
            "archive": b"not gzip",
            "truncated": archive[: len(archive) // 2],
        }[spoil]
    )
    with pytest.raises(UserError, match=str(path)):
        load_source("fashion_mnist", data_dir=str(tmp_path / "tfds"))
    assert not list((tmp_path / "tfds").glob("**/*.tfrecord*"))


def test_other_idx_types_are_refused():
    with pytest.raises(ValueError, match="Expected IDX data of unsigned bytes"):
        fashion_mnist.parse_idx(bytes([0, 0, 13, 1, 0, 0, 0, 0]))


@_needs_package
@pytest.mark.parametrize(("prefix", "count"), [("train", 60_000), ("t10k", 10_000)])
def test_debians_files(prefix, count):
    labels = fashion_mnist.read_idx(f"{prefix}-labels-idx1-ubyte")
    assert np.bincount(labels).tolist() == [count // 10] * 10
    assert fashion_mnist.read_idx(f"{prefix}-images-idx3-ubyte").shape == (count, 28, 28)

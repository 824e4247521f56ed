"""Workers that each read their part of every batch."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tas_tf.data import pipeline, sources
from tas_tf.data.augmentation import Augmentation
from tas_tf.data.decoded import keep_decoded
from tas_tf.data.fashion_mnist import FashionMnistIdx
from tas_tf.data.pipeline import epochs, paired_epochs
from tas_tf.data.preprocessing import Preprocessing
from tas_tf.data.share import WHOLE, Share, current_share, reading
from tas_tf.data.sources import load_source

_CHANGES = {
    "tfds": Augmentation(pad_crop=2, flip=True),
    "folder": Augmentation(random_resized_crop=True, color_jitter=(0.4, 0.4, 0.4, 0.1), lighting=0.1, flip=True),
}


def parts_of(make, count: int = 2) -> list:
    """The datasets of all parts."""
    found = []
    for number in range(count):
        with reading(Share(number, count)):
            found.append(make())
    assert current_share() == WHOLE
    return found


@pytest.mark.parametrize("kind", ["tfds", "folder"])
def test_parts_of_streamed_batches_make_the_whole(kind, fake_idx, image_folder, tmp_path, monkeypatch):
    """Over the end of an epoch whose last batch isn't full, with every random change that streamed images get."""
    monkeypatch.setattr(sources, "MEMORY_LIMIT_BYTES", 100)
    if kind == "tfds":
        FashionMnistIdx(data_dir=str(tmp_path / "tfds")).download_and_prepare()
        source, batch_size = load_source("fashion_mnist", data_dir=str(tmp_path / "tfds")), 16
    else:
        source, batch_size = load_source(f"folder:{image_folder}", image_size=4), 4
    options = {"preprocessing": Preprocessing("scale_0_1"), "augment": _CHANGES[kind], "seed": 3}
    steps = 2 * (source.num_train // batch_size)
    assert source.num_train % batch_size

    def make() -> tf.data.Dataset:
        return epochs(source, batch_size=batch_size, **options)

    halves = parts_of(make)
    assert all(half.element_spec[0].shape[0] == batch_size // 2 for half in halves)
    for whole, *each in zip(make().take(steps), *halves, strict=False):
        for tensor, *pieces in zip(whole, *each, strict=True):
            np.testing.assert_array_equal(np.concatenate(pieces), tensor)


@pytest.mark.parametrize("share", [WHOLE, Share(1, 2)], ids=["whole", "half"])
@pytest.mark.parametrize("kind", ["tfds", "folder", "decoded"])
def test_batches_are_left_out_without_decoding_their_images(kind, share, fake_idx, image_folder, tmp_path, monkeypatch):
    """What is left of an epoch equals the rest of the whole."""
    monkeypatch.setattr(sources, "MEMORY_LIMIT_BYTES", 100)
    if kind == "tfds":
        FashionMnistIdx(data_dir=str(tmp_path / "tfds")).download_and_prepare()
        source, batch_size, first = load_source("fashion_mnist", data_dir=str(tmp_path / "tfds")), 8, 3
    else:
        source, batch_size, first = load_source(f"folder:{image_folder}", image_size=4), 2, 1
    if kind == "decoded":
        source = keep_decoded(source, tmp_path / "cache")
    changes = _CHANGES["tfds" if kind == "tfds" else "folder"]
    options = {"preprocessing": Preprocessing("scale_0_1"), "augment": changes, "seed": 3, "first_epoch": 1}
    steps = source.num_train // batch_size
    assert steps > first

    def make(**more) -> tf.data.Dataset:
        with reading(share):
            return epochs(source, batch_size=batch_size, **options, **more)

    expected = list(make().skip(first).take(steps - first))
    decoded, decode = [], type(source).decode

    def watch(encoded):
        decoded.append(encoded)
        return encoded

    def watched(self, encoded: tf.Tensor) -> tf.Tensor:
        seen = tf.numpy_function(watch, [encoded], encoded.dtype)
        return decode(self, tf.ensure_shape(seen, encoded.shape))

    monkeypatch.setattr(type(source), "decode", watched)
    # A single epoch, as reading ahead would decode images of the next.
    monkeypatch.setattr(
        pipeline, "epoch_after_epoch", lambda epoch, read: tf.data.Dataset.range(epoch, epoch + 1).flat_map(read)
    )
    for one, other in zip(make(first_step=first), expected, strict=True):
        for ours, theirs in zip(one, other, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    left = np.arange(first * batch_size, source.num_train)
    assert len(decoded) <= share.holds(left, batch_size).sum()


def test_only_its_own_files_are_read(image_folder, monkeypatch):
    monkeypatch.setattr(sources, "MEMORY_LIMIT_BYTES", 100)
    source = load_source(f"folder:{image_folder}", image_size=4)
    indices, second = np.arange(source.num_train), Share(1, 2)
    whole = [int(index) for index, *_ in source.examples("train", indices, seed=[1, 2]).as_numpy_iterator()]
    expected = [index for place, index in enumerate(whole) if place % 4 >= 2]
    for index in set(whole) - set(expected):
        Path(source.split_paths["train"][index]).unlink()
    part = source.examples("train", indices, seed=[1, 2], only=lambda place: second.holds(place, 4))
    assert [int(index) for index, *_ in part.as_numpy_iterator()] == expected


def test_pairs_of_a_search_are_shared_too(fake_idx, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MEMORY_LIMIT_BYTES", 100)
    FashionMnistIdx(data_dir=str(tmp_path)).download_and_prepare()
    source = load_source("fashion_mnist", data_dir=str(tmp_path))
    parts = (np.arange(30), np.arange(30, 60))
    options = {"batch_size": 8, "preprocessing": Preprocessing(), "augment": _CHANGES["tfds"]}

    def make() -> tf.data.Dataset:
        return paired_epochs(source, *parts, **options)

    for whole, *halves in zip(make().take(6), *parts_of(make), strict=False):
        pieces = zip(tf.nest.flatten(whole), *map(tf.nest.flatten, halves), strict=True)
        for tensor, first, second in pieces:
            np.testing.assert_array_equal(np.concatenate([first, second]), tensor)


def test_sources_in_memory_yield_whole_batches(small_source):
    with reading(Share(1, 2)):
        dataset = epochs(small_source, batch_size=8, preprocessing=Preprocessing())
    assert dataset.element_spec[0].shape[0] == 8

"""Decoded images that are kept on disk."""

import contextlib
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from tas_tf.data import decoded, sources
from tas_tf.data.augmentation import Augmentation
from tas_tf.data.decoded import keep_decoded
from tas_tf.data.fashion_mnist import FashionMnistIdx
from tas_tf.data.sources import load_source
from tas_tf.data.task import Task
from tas_tf.errors import UserError


@pytest.fixture(params=["tfds", "folder"])
def streamed(request, fake_idx, image_folder, tmp_path, monkeypatch):
    """Options of a streamed data set."""
    monkeypatch.setattr(sources, "MEMORY_LIMIT_BYTES", 100)
    if request.param == "folder":
        return {"dataset": f"folder:{image_folder}", "image_size": 4, "resize": "pad"}
    FashionMnistIdx(data_dir=str(tmp_path / "tfds")).download_and_prepare()
    return {"dataset": "fashion_mnist", "data_dir": str(tmp_path / "tfds"), "image_size": 14, "pad_crop": 1}


def batches(dataset: tf.data.Dataset, count: int) -> list[np.ndarray]:
    return [tensor for batch in dataset.take(count).as_numpy_iterator() for tensor in tf.nest.flatten(batch)]


def assert_equal(ones: list[np.ndarray], others: list[np.ndarray]) -> None:
    for one, other in zip(ones, others, strict=True):
        np.testing.assert_array_equal(one, other)


def test_batches_are_those_of_the_files(streamed, tmp_path):
    plain, kept = Task.load(**streamed), Task.load(**streamed, cache_dir=str(tmp_path / "cache"))
    for name, options in (("training", {}), ("searching", {"share": 0.5})):
        (expected, steps), (found, same) = (getattr(task, name)(4, **options) for task in (plain, kept))
        assert steps == same
        assert_equal(batches(found(1), 2 * steps), batches(expected(1), 2 * steps))
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1


def test_images_are_decoded_once(streamed, tmp_path, monkeypatch):
    task = Task.load(**streamed, cache_dir=str(tmp_path))
    dataset, steps = task.training(4)
    first = batches(dataset(0), steps)
    monkeypatch.setattr(decoded, "_decode", lambda *arguments: 1 / 0)
    again, _ = Task.load(**streamed, cache_dir=str(tmp_path)).training(4)
    assert_equal(batches(again(0), steps), first)


def test_changed_files_are_decoded_again(image_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MEMORY_LIMIT_BYTES", 100)
    cats = image_folder / "train" / "cat"
    before = keep_decoded(load_source(f"folder:{image_folder}", image_size=4), tmp_path).images
    shutil.copy(image_folder / "train" / "dog" / "5.png", cats / "0.png")
    after = keep_decoded(load_source(f"folder:{image_folder}", image_size=4), tmp_path).images
    assert [bool((one == other).all()) for one, other in zip(before, after, strict=True)] == [False] + 9 * [True]


def test_an_interrupted_decoding_goes_on(streamed, tmp_path, monkeypatch):
    source = Task.load(**streamed).source
    whole = keep_decoded(source, tmp_path / "whole").images
    monkeypatch.setattr(decoded, "_CHUNK", 4)
    written_aside, counts = decoded.written_aside, []

    @contextlib.contextmanager
    def stop(path):
        with written_aside(path) as aside:
            yield aside
        counts.append(int(path.read_text()))
        raise KeyboardInterrupt

    monkeypatch.setattr(decoded, "_NOTED", 1)
    with monkeypatch.context() as patch:
        patch.setattr(decoded, "written_aside", stop)
        with pytest.raises(KeyboardInterrupt):
            keep_decoded(source, tmp_path / "stopped")
    assert counts == [4]
    read, view = [], decoded.central_view

    def counted(image, *options):
        def note(pixels: np.ndarray) -> np.ndarray:
            read.append(pixels)
            return pixels

        return tf.ensure_shape(tf.numpy_function(note, [view(image, *options)], tf.uint8), source.image_shape)

    monkeypatch.setattr(decoded, "central_view", counted)
    found = keep_decoded(source, tmp_path / "stopped").images
    np.testing.assert_array_equal(found, whole)
    assert len(read) == source.num_train - 4
    assert [path.suffix for path in sorted((tmp_path / "stopped").iterdir())] == [".lock", ".npy"]


def test_too_little_room(streamed, tmp_path, monkeypatch):
    monkeypatch.setattr(decoded.shutil, "disk_usage", lambda folder: SimpleNamespace(free=10))
    dataset, _ = Task.load(**streamed, cache_dir=str(tmp_path / "cache")).training(4)
    with pytest.raises(UserError, match=r"`cache_dir` needs 0.0 GB .* where 0.0 GB are free"):
        dataset(0)


def test_a_folder_that_is_none(streamed, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="`cache_dir` can't be used: File exists"):
        keep_decoded(Task.load(**streamed).source, tmp_path / "file")


@pytest.mark.parametrize("changes", [{"random_resized_crop": True}, {"test_resize": 8}])
def test_what_needs_whole_images_is_refused(changes):
    with pytest.raises(UserError, match=f"`cache_dir` keeps resized images, but `{next(iter(changes))}` needs whole"):
        Task.load("digits", cache_dir="cache", **changes)
    assert Augmentation(random_resized_crop=True)

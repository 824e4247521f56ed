"""Keeps decoded images on disk, for data too large for memory whose files take long to decode."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tas_tf.data.image_files import Broken
from tas_tf.data.resizing import central_view
from tas_tf.data.source import Positions, StreamedSource
from tas_tf.errors import UserError
from tas_tf.replacing import written_aside

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

#: Images that are written together, and chunks after which their number is noted.
_CHUNK, _NOTED = 256, 16


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class DecodedSource(StreamedSource):
    """A streamed source whose training images were decoded and resized before.

    Attributes:
        source: The source, which gives order and labels.
        images: The training images, uint8 `[num_examples, height, width, channels]`, in a file.
    """

    source: StreamedSource = dataclasses.field(repr=False)
    images: np.ndarray = dataclasses.field(repr=False)

    def examples(
        self, split: str, indices: np.ndarray, *, seed: tf.Tensor | None = None, only: Positions | None = None
    ) -> tf.data.Dataset:
        """Yields `(index, image, label)` in the order of the source; here, images are decoded ones."""
        if split != "train":
            raise ValueError(f"Only training images are kept. Received: {split}.")

        def read(index: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, ...]:
            return index, tf.numpy_function(lambda number: self.images[number], [index], tf.uint8), label

        examples = self.source.labelled(split, indices, seed=seed, only=only)
        return examples.map(read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    def decode(self, encoded: tf.Tensor) -> tf.Tensor:
        """Returns the image, which is decoded, uint8 `image_shape`."""
        return tf.ensure_shape(encoded, self.image_shape)

    @property
    def place(self) -> str:
        """That of the source, as all that follows."""
        return self.source.place

    def stamps(self, split: str) -> Sequence[str]:
        """As in the source."""
        return self.source.stamps(split)

    def where(self, split: str, index: int) -> str:
        """As in the source."""
        return self.source.where(split, index)

    def fault(self, split: str, index: int) -> Broken | None:
        """As in the source."""
        return self.source.fault(split, index)

    def fingerprint(self, split: str) -> str:
        """That of the source."""
        return self.source.fingerprint(split)

    def sample(self, indices: np.ndarray, count: int) -> np.ndarray:
        """Picks as the source does."""
        return self.source.sample(indices, count)


def keep_decoded(source: StreamedSource, folder: str | Path) -> DecodedSource:
    """Decodes the training images of a source unless a folder has them already; one process does it at a time.

    If it is interrupted, the next call goes on.

    Args:
        source: The source.
        folder: Folder of the file; created if it is missing.

    Returns:
        A source that yields the same images and labels in the same order.

    Raises:
        UserError: The folder can't be written, or has too little room.
    """
    folder, count = Path(folder).expanduser(), source.num_train
    shape = (count, *source.image_shape)
    key = [source.fingerprint("train"), shape, source.resize]
    path = folder / f"{hashlib.sha256(repr(key).encode()).hexdigest()[:20]}.npy"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_suffix(".lock")):
            if not path.exists():
                _check_room(source, path, int(np.prod(shape)))
                _decode(source, path, shape)
    except OSError as error:
        raise UserError(f"`cache_dir` can't be used: {error.strerror} ({folder}).") from error
    common = {field.name: getattr(source, field.name) for field in dataclasses.fields(StreamedSource)}
    return DecodedSource(**common, source=source, images=np.load(path, mmap_mode="r"))


def _check_room(source: StreamedSource, path: Path, needed: int) -> None:
    partial, _ = _unfinished(path)
    there = 512 * partial.stat().st_blocks if partial.exists() else 0  # a file may have holes
    free = shutil.disk_usage(path.parent).free
    if needed - there > free:
        raise UserError(
            f"`cache_dir` needs {needed / 1e9:.1f} GB for the decoded training images of {source.name}. "
            f"Received: {path.parent}, where {free / 1e9:.1f} GB are free."
        )


def _unfinished(path: Path) -> tuple[Path, Path]:
    """The images so far, and the file that says how many they are."""
    return path.with_suffix(".partial.npy"), path.with_suffix(".done")


def _decode(source: StreamedSource, path: Path, shape: tuple[int, ...]) -> None:
    """Writes the file, from where an earlier process stopped."""
    partial, note = _unfinished(path)
    done = int(note.read_text(encoding="utf-8")) if partial.exists() and note.exists() else 0
    images = np.lib.format.open_memmap(partial, "r+" if done else "w+", np.uint8, None if done else shape)
    with partial.open("r+b") as file:  # takes the room now: without any left, writing to memory would kill the process
        os.posix_fallocate(file.fileno(), 0, partial.stat().st_size)
    print(f"cache: decoding the {shape[0]:,} training images of {source.name} into {path.parent}")
    bar = keras.utils.Progbar(shape[0], unit_name="image", verbose=1 if sys.stdout.isatty() else 0)

    def view(index: tf.Tensor, encoded: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        del label
        return index, central_view(source.decode(encoded), source.image_shape[:2], source.resize)

    examples = source.examples("train", np.arange(shape[0]), only=lambda position: position >= done)
    decoded = examples.map(view, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    for indices, chunk in decoded.batch(_CHUNK).prefetch(2).as_numpy_iterator():
        images[indices] = chunk
        done += len(indices)
        if done // _CHUNK % _NOTED == 0:
            images.flush()  # before the note of it
            with written_aside(note) as aside:
                aside.write_text(str(done), encoding="utf-8")
        bar.update(done, finalize=done == shape[0])
    images.flush()
    del images
    os.replace(partial, path)
    note.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Waits until no other process is in the block; the lock of a process ends with it."""
    if fcntl is None:
        yield
        return
    with path.open("w", encoding="utf-8") as file:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield

"""Decodes images that are read again in every epoch once before a training, and remembers which of them are whole."""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import re
import sys
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tas_tf import workers
from tas_tf.data.image_files import LISTED, Broken, listing_of
from tas_tf.data.source import SPLITS, Source, StreamedSource
from tas_tf.errors import UserError
from tas_tf.replacing import written_aside

#: Images decoded between two looks at the clock, and such batches after which the result so far is kept.
_BATCH, _KEPT = 256, 64
#: Number of images from which on the user is told that they are decoded.
_MANY = 2_000
#: Errors that have another cause than an image, even if they name what reads images.
ELSEWHERE = (
    tf.errors.ResourceExhaustedError,
    tf.errors.CancelledError,
    tf.errors.AbortedError,
    tf.errors.UnavailableError,
    tf.errors.OutOfRangeError,
)
#: What errors name that are raised where images are read: TensorFlow's operations, or what Pillow's reader raises.
#: Errors of anything else may name the operation that hands on batches, IteratorGetNext.
READS = re.compile(r"\bReadFile\b|\bDecode\w+|\bParse\w*Example|\bBroken: ")
_NONE = np.zeros(0, np.uint64)
#: Streamed data in use: an error while it is read doesn't name the file.
_watched: weakref.WeakSet[StreamedSource] = weakref.WeakSet()


def undecodable(source: StreamedSource, splits: Sequence[str] = SPLITS, *, anew: bool = False) -> list[tuple[str, int]]:
    """Decodes the images of a source as trainings do, except those that an earlier call decoded and nobody changed.

    What was found is kept in the user's cache, so an interrupted call is continued by the next one.

    Args:
        source: The source.
        splits: Splits whose images are decoded.
        anew: Whether images that were decoded earlier are decoded too.

    Returns:
        Split and row of each image that can't be decoded.
    """
    stamps = {split: _digests(source.stamps(split)) for split in splits}
    known = _NONE if anew else _load(source)
    todo = {split: np.flatnonzero((found == 0) | ~np.isin(found, known)) for split, found in stamps.items()}
    count = sum(map(len, todo.values()))
    if not count:
        return []
    shown = count >= _MANY and workers.is_chief()
    if shown:
        purpose = "again, to find those that can't be read any more" if anew else "once, to find damaged ones"
        print(f"`dataset`: decoding {count:,} images of {source.name} {purpose}")
    bar = keras.utils.Progbar(count, unit_name="image", verbose=1 if shown and sys.stdout.isatty() else 0)
    good: list[np.ndarray] = []
    bad: list[tuple[str, int]] = []
    try:
        for split, rows in todo.items():
            decoded = [np.zeros(0, np.int64)]
            for number, batch in enumerate(_decoded(source, split, rows), 1):
                decoded.append(batch)
                good.append(stamps[split][batch])
                bar.add(len(batch))
                if number % _KEPT == 0:
                    _save(source, good)
            bad += [(split, int(row)) for row in np.setdiff1d(rows, np.concatenate(decoded))]
    except BaseException:
        _save(source, good)
        raise
    everything = np.concatenate(list(stamps.values()))
    # Images that are no longer part of the data are forgotten, but not because a disk is out of reach for a moment.
    whole = set(splits) == set(SPLITS) and everything.all()
    wrong = np.array([stamps[split][row] for split, row in bad], np.uint64)
    _save(source, good, without=wrong, only=everything if whole else None)
    return bad


def remember(source: StreamedSource, rows: Mapping[str, np.ndarray]) -> None:
    """Notes that images need not be decoded to see whether that works.

    Args:
        source: The source.
        rows: Rows of each split that were decoded as trainings do it.
    """
    _save(source, [_digests(source.stamps(split))[found] for split, found in rows.items()])


def listing_of_rows(source: StreamedSource, rows: Sequence[tuple[str, int]]) -> str:
    """Lines with where the first images come from, why each can't be read, and the number of others.

    Args:
        source: The source.
        rows: Split and row of each image. Behind damage, there may be very many that can't be read.
    """
    changed = Broken("it was changed while the command ran")
    faults = [(source.where(split, row), source.fault(split, row) or changed) for split, row in rows[:LISTED]]
    return listing_of(faults, count=len(rows))


def watch(source: Source) -> None:
    """Lets `trouble_with_images` look at a source, as long as it is in use, if its images aren't held in memory."""
    if isinstance(source, StreamedSource):
        _watched.add(source)


def trouble_with_images(error: Exception) -> UserError | None:
    """Finds the images because of which TensorFlow stopped; returns `None` if the error has another cause.

    A file may have been changed or removed since it was checked, and errors of a pipeline don't say which one it is.

    Args:
        error: What TensorFlow raised while something ran.
    """
    if not isinstance(error, tf.errors.OpError) or isinstance(error, ELSEWHERE):
        return None
    if not isinstance(error, tf.errors.DataLossError) and not READS.search(str(error)):
        return None
    sources = {_kept_name(source): source for source in _watched}.values()
    for anew in (False, True):  # at first those that were changed since they were decoded, which takes a moment
        for source in sources:
            if rows := undecodable(source, anew=anew):
                return UserError(
                    f"`dataset`: {len(rows)} image(s) of {source.name} can't be read. Put back or replace them, and "
                    f"run the same command again, which continues:\n{listing_of_rows(source, rows)}"
                )
    return None


def _decoded(source: StreamedSource, split: str, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Decodes images of a split, and yields the rows of those for which that works, in batches."""

    def decode(index: tf.Tensor, encoded: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        del label
        return index, tf.size(source.decode(encoded))  # TensorFlow doesn't compute what has no result

    if len(rows):
        examples = source.examples(split, rows).map(decode, num_parallel_calls=tf.data.AUTOTUNE)
        for indices, _ in examples.ignore_errors().batch(_BATCH).prefetch(2).as_numpy_iterator():
            yield indices


def _digests(stamps: Sequence[str]) -> np.ndarray:
    """A number for each image that is another one if the image changes, uint64; 0 for images that are missing."""
    found = b"".join(hashlib.blake2b(stamp.encode(), digest_size=8).digest() if stamp else bytes(8) for stamp in stamps)
    return np.frombuffer(found, np.uint64)


def _kept_name(source: StreamedSource) -> str:
    """Name of the file for what is known of a source. Images may be whole with some channels and not with others."""
    key = (source.name, source.place, source.image_shape[-1])
    return f"{hashlib.sha256(repr(key).encode()).hexdigest()[:20]}.decoded"


def _folder() -> Path:
    """The folder of such files.

    Raises:
        OSError: The user has no home.
    """
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError as error:
        raise FileNotFoundError(errno.ENOENT, str(error).rstrip(".")) from error
    return cache / "tas_tf" / "images"


def _load(source: StreamedSource) -> np.ndarray:
    """What is known of a source; nothing if that can't be read, so that all images are decoded."""
    try:
        return np.fromfile(_folder() / _kept_name(source), np.uint64)
    except OSError:
        return _NONE


def _save(
    source: StreamedSource, good: Sequence[np.ndarray], *, without: np.ndarray = _NONE, only: np.ndarray | None = None
) -> None:
    """Adds to what is known of a source on this machine. Without a place for it, images are decoded at each start.

    Args:
        source: The source.
        good: Images that can be decoded.
        without: Images that can't.
        only: Images of which something may be known; by default all.
    """
    found = np.setdiff1d(np.concatenate([_load(source), *good]), np.append(without, np.uint64(0)))
    folder = Path("~/.cache")
    try:
        folder = _folder()
        folder.mkdir(parents=True, exist_ok=True)
        with written_aside(folder / _kept_name(source)) as aside:
            (found if only is None else np.intersect1d(found, only)).tofile(aside)
    except OSError as error:
        _say_once(f"`dataset`: can't remember which images were decoded: {error.strerror} ({folder}).")


@functools.cache
def _say_once(text: str) -> None:
    print(text)

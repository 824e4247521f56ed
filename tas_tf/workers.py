"""Processes that train a network together, on one machine or several: the chief and the other workers.

All of them run the same program with the same settings, and so take the same training steps. What isn't training runs
on the chief alone, and the others get its result, see `once`. Only the chief writes files and talks to the user.
Without other workers, a process is the chief, and all functions do what their names say without a detour.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import pickle
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from tas_tf.errors import UserError
from tas_tf.interruption import REQUESTS, Terminated

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

_Result = TypeVar("_Result")
# Seconds to wait for files; NFS looks again for a missing one after a minute.
_PATIENCE = 100.0
#: What the chief may raise, which then ends the other workers in the same way.
_TOLD = (UserError, KeyboardInterrupt, Terminated)


@dataclasses.dataclass
class _Team:
    """The workers, as one of them sees them.

    Attributes:
        strategy: Strategy over all of them.
        number: Number of this one; the chief is 0.
        size: How many there are.
        is_alone: Whether the others wait for a result of the chief, so that it can't train now.
    """

    strategy: tf.distribute.Strategy
    number: int
    size: int
    is_alone: bool = False


_team: _Team | None = None


class WorkerLost(Exception):
    """Another worker has ended, or can't be reached."""


def join(strategy: tf.distribute.Strategy, number: int, size: int) -> None:
    """Makes this process one of several workers until it ends.

    Args:
        strategy: A `MultiWorkerMirroredStrategy`.
        number: Number of this worker; the chief is 0.
        size: How many there are.
    """
    global _team
    _team = _Team(strategy, number, size) if size > 1 else None


def count() -> int:
    """How many workers train together."""
    return 1 if _team is None else _team.size


def number() -> int:
    """Number of this worker; the chief is 0."""
    return 0 if _team is None else _team.number


def is_chief() -> bool:
    """Whether this process writes files, and talks to the user."""
    return number() == 0


def once(compute: Callable[[], _Result]) -> _Result:
    """Computes something on the chief alone, and returns the result on all workers.

    All workers must call this at the same point of the program. Inside, the chief can't train, since the others wait.

    Args:
        compute: Returns something that can be pickled. A `UserError` or a request to end is raised on all workers.

    Raises:
        WorkerLost: Another worker has ended.

    Example:
        >>> once(lambda: 1 + 1)
        2
    """
    if _team is None or _team.is_alone:
        return compute()
    if not is_chief():
        result, error = pickle.loads(_from_chief(b""))  # from a process of the same program
    else:
        result = error = failure = None
        _team.is_alone = True
        try:
            result = compute()
            content = pickle.dumps((result, None))
        except _TOLD as told:
            error = told
            content = pickle.dumps((None, told))
        except BaseException as other:
            failure = other
            content = pickle.dumps((None, WorkerLost(f"Worker 0 has failed: {other!r}")))
        finally:
            _team.is_alone = False
        _from_chief(content)
        if failure is not None:
            raise failure
    if error is not None:
        raise error
    return result


def on_chief(function: Callable[..., _Result]) -> Callable[..., _Result]:
    """Decorates a function that runs on the chief alone, see `once`."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> _Result:
        return once(lambda: function(*args, **kwargs))

    return run


def share(variables: Iterable[keras.Variable | tf.Variable]) -> None:
    """Gives variables on all workers and devices the values that they have on the chief's first device.

    Args:
        variables: Variables of Keras or TensorFlow, the same ones on all workers.

    Raises:
        WorkerLost: Another worker has ended.
    """
    if _team is None:
        return
    from tas_tf.variables import tensorflow_variable

    copies = [_team.strategy.experimental_local_results(tensorflow_variable(one)) for one in variables]
    values = once(lambda: [on_devices[0].numpy() for on_devices in copies])
    for on_devices, value in zip(copies, values, strict=True):
        for copy in on_devices:
            copy.assign(value)


def any_wants(wish: bool) -> bool:
    """Whether any worker wants something, such as to save now. A request to end that one received counts for all.

    Args:
        wish: Whether this one wants it.

    Raises:
        WorkerLost: Another worker has ended.
    """
    wish = wish or REQUESTS.received is not None
    if _team is None:
        return wish
    stopped = REQUESTS.received == signal.SIGINT
    wishes, stops, ends = _sum([wish, stopped, REQUESTS.received is not None and not stopped])
    if stops or ends:
        REQUESTS.hear(signal.SIGINT if stops else signal.SIGTERM)
    return bool(wishes)


def any_true(value: bool) -> bool:
    """Whether a value is true on any worker.

    Raises:
        WorkerLost: Another worker has ended.
    """
    return value if _team is None else bool(_sum([value])[0])


def check_alike(settings: Mapping[str, str]) -> None:
    """Checks that all workers have the same settings: with different ones, they train networks that drift apart.

    Args:
        settings: This worker's settings, by name.

    Raises:
        UserError: They differ; on those that have others than the chief, the message says which.
    """
    if _team is None:
        return
    chiefs = once(lambda: dict(settings))
    names = sorted(name for name in settings.keys() | chiefs.keys() if settings.get(name, "") != chiefs.get(name, ""))
    if any_true(bool(names)):
        own, others = ([found.get(name) or "not given" for name in names] for found in (settings, chiefs))
        said = [
            f"`{name}` is {mine} on worker {number()}, but {its} on worker 0."
            for name, mine, its in zip(names, own, others, strict=True)
        ]
        raise UserError(
            "All workers must be started with the same settings. "
            + (" ".join(said) or "Received: others on another worker, whose messages say which.")
        )


@contextlib.contextmanager
def nowhere() -> Iterator[str]:
    """Yields a folder in memory, for workers that take part in writing although only the chief's files count.

    Reading some variables takes all workers. Their own disks may be full, and the shared one closed to them.
    TensorFlow and Keras write to such a folder, Python doesn't.
    """
    import tensorflow as tf

    folder = f"ram://nowhere-{number()}"
    tf.io.gfile.makedirs(folder)
    try:
        yield folder
    finally:
        tf.io.gfile.rmtree(folder)


def wait_for(paths: Iterable[Path]) -> bool:
    """Waits until this worker sees what the chief has written; a folder shared over a network may take a minute.

    Args:
        paths: Files and folders.

    Returns:
        Whether it sees all of them.
    """
    given_up = time.monotonic() + _PATIENCE
    for path in paths:
        while not path.exists():
            if is_chief() or time.monotonic() > given_up:
                return False
            time.sleep(0.2)
            if path.parent.is_dir():
                os.listdir(path.parent)  # looks at the folder anew
    return True


def is_loss_of_worker(error: BaseException) -> bool:
    """Whether TensorFlow raised an error because another worker has ended, or can't be reached."""
    if _team is None:
        return False
    import tensorflow as tf

    lost = isinstance(error, WorkerLost | tf.errors.UnavailableError)
    return lost or (isinstance(error, tf.errors.OpError) and "Collective ops is aborted" in str(error))


def _from_chief(content: bytes) -> bytes:
    """Returns the chief's content on all workers."""
    size = int(_sum([len(content)])[0])
    # As whole numbers of 8 bytes, which every device can add; those of the other workers are 0.
    padded = np.frombuffer(content.ljust(-(-size // 8) * 8 if content else 0, b"\0"), np.int64)
    return _sum(padded if content else np.zeros(-(-size // 8), np.int64)).tobytes()[:size]


def _sum(values: Iterable[int] | np.ndarray) -> np.ndarray:
    """Returns the sums over all workers."""
    import tensorflow as tf

    if _team.is_alone:
        raise RuntimeError("Workers can't train or talk while the others wait for the chief's result.")
    strategy = _team.strategy
    own = np.asarray(values, np.int64)
    none = np.zeros_like(own)
    on_each = strategy.num_replicas_in_sync // _team.size

    def of_replica(context: Any) -> tf.Tensor:
        return tf.constant(none if context.replica_id_in_sync_group % on_each else own)

    replicated = strategy.experimental_distribute_values_from_function(of_replica)
    try:
        return strategy.reduce(tf.distribute.ReduceOp.SUM, replicated, axis=None).numpy()
    except tf.errors.OpError as error:
        if is_loss_of_worker(error):
            raise WorkerLost(str(error)) from error
        raise

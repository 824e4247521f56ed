"""Finds the workers that train together: from `TF_CONFIG`, which TensorFlow's users set, or from Slurm."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator

import tensorflow as tf

from tas_tf import workers
from tas_tf.errors import UserError

_EXAMPLE = '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'


@functools.cache
def join_cluster() -> tf.distribute.Strategy:
    """Joins the other workers, waits until all of them have come, and returns the strategy over all their devices.

    It has to come before anything that TensorFlow computes, and returns the same strategy each time.

    Raises:
        UserError: The process isn't one of several workers, `TF_CONFIG` is invalid, or TensorFlow has computed already.
    """
    resolver, number, size = _resolve()
    print(f"Worker {number} waits for the others, {size} in all.", file=sys.stderr)
    try:
        with _ending_at_once():
            strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    except RuntimeError as error:
        if "program startup" not in str(error):
            raise
        raise UserError(
            "`strategy`=multi_worker must be the first thing that a process does with TensorFlow. Use a process of its "
            "own for each command."
        ) from error
    except tf.errors.OpError as error:
        raise UserError(
            "`strategy`=multi_worker: the other workers can't be reached, or another program uses this one's port. "
            f"{error.message}"
        ) from error
    workers.join(strategy, number, size)
    return strategy


@contextlib.contextmanager
def _ending_at_once() -> Iterator[None]:
    """Lets signals end the process: the handlers of Python would wait as long as TensorFlow does.

    Afterwards, they are set again, as TensorFlow sets a handler of its own for SIGTERM.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in handlers:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _resolve() -> tuple[tf.distribute.cluster_resolver.ClusterResolver, int, int]:
    """The workers' addresses, the number of this one, and how many there are."""
    if os.environ.get("TF_CONFIG"):
        _check_config(os.environ["TF_CONFIG"])
        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    elif "SLURM_STEP_NUM_TASKS" in os.environ:  # the process was started by srun
        resolver = _slurm_resolver()
    else:
        raise UserError(
            "`strategy`=multi_worker needs TF_CONFIG in the environment of each worker, or srun to start them. "
            f"Expected something like TF_CONFIG='{_EXAMPLE}'. Received: none."
        )
    jobs = resolver.cluster_spec().as_dict()
    size = sum(len(addresses) for addresses in jobs.values())
    # The chief may be a job of its own, before the workers.
    before = len(jobs.get("chief", ())) if resolver.task_type == "worker" else 0
    return resolver, before + resolver.task_id, size


def _slurm_resolver() -> tf.distribute.cluster_resolver.ClusterResolver:
    """Finds the tasks of a Slurm step. Which GPUs each of them sees is left to Slurm."""
    most = int(os.environ["SLURM_STEP_NUM_TASKS"])
    # With its defaults, it asks nvidia-smi, which may be missing, and hands out GPUs that the task may not use.
    resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
        gpus_per_node=most, gpus_per_task=1, auto_set_gpu=False
    )
    spec = resolver.cluster_spec()
    host = spec.task_address(resolver.task_type, resolver.task_id).rpartition(":")[0]
    if (node := os.environ.get("SLURMD_NODENAME", host)) != host:  # it sorts node10 before node2
        raise UserError(
            f"`strategy`=multi_worker: TensorFlow takes this task for one on {host}, but it runs on {node}. Name nodes "
            "so that sorting keeps their order, or set TF_CONFIG in the environment of each task."
        )
    return resolver


def _check_config(text: str) -> None:
    """Checks TF_CONFIG.

    Raises:
        UserError: It isn't JSON of the expected form, or has other jobs than workers.
    """
    problem = None
    try:
        config = json.loads(text)
        jobs, task = config["cluster"], config["task"]
        if wrong := sorted(set(jobs) - {"chief", "worker"}):
            problem = f"jobs of the kinds worker and chief, but there is {', '.join(wrong)}"
        elif not 0 <= int(task["index"]) < len(jobs.get(task["type"], ())):
            problem = f"a task among those of its cluster, but task {task['index']} of {task['type']} isn't"
    except (ValueError, OverflowError, KeyError, TypeError, AttributeError):
        problem = f"something like {_EXAMPLE}"
    if problem:
        raise UserError(f"TF_CONFIG is invalid: expected {problem}. Received: {text}")

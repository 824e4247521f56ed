"""Where workers find each other. How they train together: `tests/test_workers.py`."""

import json

import pytest
import tensorflow as tf

from tas_tf.errors import UserError
from tas_tf.training import cluster
from tas_tf.training.cluster import join_cluster

_JOBS = {"worker": ["localhost:1", "localhost:2"]}


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    for name in ("TF_CONFIG", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)


def test_without_other_workers():
    with pytest.raises(UserError, match=r"needs TF_CONFIG in the environment of each worker, or srun"):
        join_cluster()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("nonsense", "expected something like"),
        (json.dumps({"cluster": _JOBS}), "expected something like"),
        (json.dumps([1]), "expected something like"),
        (json.dumps({"cluster": {**_JOBS, "ps": ["x:1"]}, "task": {"type": "worker", "index": 0}}), "but there is ps"),
        (json.dumps({"cluster": _JOBS, "task": {"type": "worker", "index": 2}}), "task 2 of worker isn't"),
        (json.dumps({"cluster": _JOBS, "task": {"type": "chief", "index": 0}}), "task 0 of chief isn't"),
        (json.dumps({"cluster": _JOBS, "task": {"type": "worker", "index": float("inf")}}), "something like"),
    ],
)
def test_configurations_that_make_no_sense(monkeypatch, config, message):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(UserError, match=f"TF_CONFIG is invalid: .*{message}"):
        join_cluster()


def test_after_tensorflow_has_computed(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": _JOBS, "task": {"type": "worker", "index": 1}}))
    assert int(tf.constant(1) + 1) == 2
    with pytest.raises(UserError, match="must be the first thing that a process does with TensorFlow"):
        join_cluster()


@pytest.mark.parametrize(
    ("jobs", "task", "number"),
    [
        (_JOBS, ("worker", 1), 1),
        ({"chief": ["localhost:1"], "worker": ["localhost:2", "localhost:3"]}, ("chief", 0), 0),
        ({"chief": ["localhost:1"], "worker": ["localhost:2", "localhost:3"]}, ("worker", 1), 2),
    ],
)
def test_the_chief_is_worker_0(monkeypatch, jobs, task, number):
    kind, index = task
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": jobs, "task": {"type": kind, "index": index}}))
    _, found, size = cluster._resolve()
    assert (found, size) == (number, sum(map(len, jobs.values())))


def test_slurm(monkeypatch):
    """Two tasks on each of two machines, as srun tells them to its third task."""
    told = {
        "SLURM_STEP_NUM_TASKS": "4",
        "SLURM_STEP_NODELIST": "node[1-2]",
        "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
        "SLURM_PROCID": "2",
        "SLURMD_NODENAME": "node2",
    }
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    resolver, number, size = cluster._resolve()
    assert (number, size) == (2, 4)
    assert [address.partition(":")[0] for address in resolver.cluster_spec().job_tasks("worker")] == [
        *("node1", "node1", "node2", "node2")
    ]
    monkeypatch.setenv("SLURMD_NODENAME", "node1")
    with pytest.raises(UserError, match="takes this task for one on node2, but it runs on node1"):
        cluster._resolve()

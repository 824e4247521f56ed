"""What several workers do together in tests; run as a program, this is one of them.

Arguments: folder for results, and names of functions of this module that take a strategy and the folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tas_tf import workers
from tas_tf.cost.budget import Budget
from tas_tf.errors import UserError
from tas_tf.graph.graph import Graph
from tas_tf.interruption import Terminated, deferred, listening
from tas_tf.searching.run import run_search
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.training.network import logits_of, train_network
from tas_tf.training.settings import TrainSettings
from tas_tf.training.strategy import make_strategy
from tests.digits import tiny_network, tiny_search, tiny_task
from tests.networks import randomize

_ROOT = Path(__file__).parents[1]
TRAINING = TrainSettings(epochs=2, warmup_epochs=0, batch_size=32, lr=0.05, views=1)


def adapted(*, normalised: bool) -> keras.Model:
    """The tiny network without batch normalisation, or with statistics over the batches of all workers."""

    def norm(name: str) -> keras.Layer:
        if not normalised:
            return keras.layers.Activation("linear", name=name)
        return keras.layers.BatchNormalization(momentum=0.9, synchronized=True, name=name)

    keras.utils.set_random_seed(0)
    return tiny_network(norm=norm)


def train_teacher(strategy: tf.distribute.Strategy, folder: Path) -> dict[str, np.ndarray]:
    """Trains the network without batch normalisation on labels."""
    space = SearchSpace.from_graph(Graph.from_model(adapted(normalised=False)))
    result = train_network(space, Shape.full(space), tiny_task(), TRAINING, strategy=strategy, verbose=0)
    return _weights(result.model, result.metrics)


def train_student(strategy: tf.distribute.Strategy, folder: Path) -> dict[str, np.ndarray]:
    """Trains a narrower network with batch normalisation on the answers of a teacher, asked in the first epoch."""
    model = adapted(normalised=True)
    space = SearchSpace.from_graph(Graph.from_model(model))
    with strategy.scope():
        teacher = logits_of(randomize(model), space)
    options = {"strategy": strategy, "teacher": teacher, "verbose": 0}
    result = train_network(space, Shape.random(space, 0), tiny_task(), TRAINING, **options)
    return _weights(result.model, result.metrics)


def search(strategy: tf.distribute.Strategy, folder: Path) -> dict[str, np.ndarray]:
    """Searches, without batch normalisation."""
    space = SearchSpace.from_graph(Graph.from_model(adapted(normalised=False)))
    result = run_search(
        space, tiny_task(), Budget.parse("macs:0.5"), tiny_search(epochs=2), strategy=strategy, verbose=0
    )
    widths, depths = result.probabilities
    history = {name: np.array(values) for name, values in result.history.items()}
    return {"widths": widths, "depths": depths, "shape": np.array(result.shape.counts), **history}


def talk(strategy: tf.distribute.Strategy, folder: Path) -> dict[str, np.ndarray]:
    """Results of the chief, its errors, shared values and wishes reach all workers."""
    found = workers.once(lambda: {"number": workers.number(), "nested": workers.once(lambda: "chief")})
    assert found == {"number": 0, "nested": "chief"}

    @workers.on_chief
    def refuse(text: str) -> None:
        raise UserError(text)

    with pytest.raises(UserError, match="told to all"):
        refuse("told to all")
    with strategy.scope():
        variable = tf.Variable([1.0, 2.0])
    strategy.experimental_local_results(variable)[0].assign([float(workers.number()), 5.0])
    workers.share([variable])
    assert not workers.any_wants(False)
    assert workers.any_wants(workers.number() == 1)
    noted = []

    def work() -> None:
        with listening(), deferred():
            if workers.number() == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            assert workers.any_wants(False)
            noted.append("told")
            os.kill(os.getpid(), signal.SIGTERM)  # clusters send it to all workers
            noted.append("not at once, as at a second one")

    with pytest.raises(Terminated):
        work()
    assert workers.any_true(workers.number() == 1)
    workers.check_alike({"lr": "0.1"})
    told = ("Received: others on another worker", "`lr` is 0.2 on worker 1, but 0.1 on worker 0. `seed` is not given")
    with pytest.raises(UserError, match=told[workers.number()]):
        workers.check_alike(({"lr": "0.1", "seed": "3"}, {"lr": "0.2"})[workers.number()])
    return {"shared": variable.numpy(), "noted": np.array(len(noted))}


def _weights(model: keras.Model, metrics: dict) -> dict[str, np.ndarray]:
    found = {weight.path: np.array(weight) for weight in model.weights}
    return {**found, "loss": np.array(metrics["loss"]), "accuracy": np.array(metrics["accuracy"])}


def start(command: list[str], *, count: int = 2, **options) -> list[subprocess.Popen]:
    """Starts a Python program as several workers of this machine.

    Args:
        command: Arguments of Python.
        count: How many.
        **options: As in `subprocess.Popen`.
    """
    ports = _free_ports(count)
    processes = []
    for number in range(count):
        config = {
            "cluster": {"worker": [f"localhost:{port}" for port in ports]},
            "task": {"type": "worker", "index": number},
        }
        environment = {**os.environ, "TF_CONFIG": json.dumps(config), "PYTHONPATH": str(_ROOT)}
        processes.append(subprocess.Popen([sys.executable, *command], env=environment, cwd=_ROOT, text=True, **options))
    return processes


def _free_ports(count: int) -> list[int]:
    """Ports that no program listens on.

    Skips the test where none can be opened.
    """
    with contextlib.ExitStack() as opened:
        try:
            sockets = [opened.enter_context(socket.create_server(("localhost", 0))) for _ in range(count)]
        except OSError as error:
            pytest.skip(f"workers need ports, and none can be opened: {error}")
        return [one.getsockname()[1] for one in sockets]


if __name__ == "__main__":
    target, *names = sys.argv[1:]
    joined = make_strategy("multi_worker")
    for name in names:
        found = globals()[name](joined, Path(target))
        np.savez(Path(target) / f"{name}_{workers.number()}.npz", **found)

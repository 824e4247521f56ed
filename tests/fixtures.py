"""What tests share: two logical CPU devices that stand in for two GPUs, fixtures, and measures that save time."""

import gc
import os
import sys
from collections.abc import Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, settings
from keras.src.backend.common import global_state
from tensorflow.lite.python import lite

from tas_tf import description
from tas_tf.compression import compress, search
from tas_tf.data.task import Task
from tas_tf.deploy.checks import check_deployable
from tas_tf.graph import custom
from tas_tf.graph.graph import Graph
from tas_tf.latency import meter, table
from tas_tf.runs import workspace
from tas_tf.training.strategy import make_strategy
from tests.costs import Clock
from tests.digits import tiny_network

# Must happen before TensorFlow touches a device, hence at import.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration(), tf.config.LogicalDeviceConfiguration()],
)
# Networks of tests are too small to share an operator among threads: waking these costs more than they compute.
tf.config.threading.set_intra_op_parallelism_threads(1)

# How long an example takes says nothing about the code.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(scope="session", autouse=True)
def _cache_of_its_own(tmp_path_factory) -> Iterator[None]:
    """Keeps measurements of tests out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _only_recent_garbage_is_collected() -> Iterator[None]:
    """Spares the full collections that TFLite and Keras ask for with each network: they scan all that tests keep."""
    recent = SimpleNamespace(collect=lambda: gc.collect(1))
    with pytest.MonkeyPatch.context() as patch:
        for module in (lite, global_state):
            patch.setattr(module, "gc", recent)
        yield


@pytest.fixture
def own_layers(monkeypatch) -> Iterator[None]:
    """Forgets afterwards which layers the user has made known, declared and accepted."""
    monkeypatch.setattr(custom, "_declared", {})
    monkeypatch.setattr(custom, "_accepted", set())
    known, modules, paths = dict(keras.saving.get_custom_objects()), set(sys.modules), list(sys.path)
    yield
    keras.saving.get_custom_objects().clear()
    keras.saving.get_custom_objects().update(known)
    for name in set(sys.modules) - modules:
        if not name.startswith(("tas_tf", "keras", "tensorflow", "tf_keras")):
            del sys.modules[name]
    sys.path[:] = paths


@pytest.fixture
def clock(monkeypatch, tmp_path) -> Clock:
    """Replaces what times shapes."""
    found = Clock()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(table, "time_shapes", found)
    monkeypatch.setattr(meter, "time_shapes", found)
    monkeypatch.setattr(meter, "write_student", lambda space, shape, path, target: path)
    return found


@pytest.fixture(scope="session", autouse=True)
def _each_network_is_converted_once() -> Iterator[None]:
    """Converts each network only once for all commands; tests/deploy/test_checks.py tests the conversion itself."""
    passed = set()

    def check(model: keras.Model, **options: Any) -> None:
        layers = [(type(layer), str(layer.get_config())) for layer in options.get("preprocessing_layers", ())]
        policy = keras.mixed_precision.dtype_policy().name
        key = (Graph.from_model(model).digest, policy, str(layers), options.get("tflite", True))
        if key not in passed:
            check_deployable(model, **options)
            passed.add(key)

    with pytest.MonkeyPatch.context() as patch:
        for module in (compress, description, search, workspace):
            patch.setattr(module, "check_deployable", check)
        yield


@pytest.fixture(scope="session")
def two_replicas() -> tf.distribute.Strategy:
    """Two replicas. The process has only this strategy, since collectives of a second one would clash with it."""
    return make_strategy("mirrored")


@pytest.fixture(scope="session")
def trained_tiny(tmp_path_factory) -> Path:
    """A classifier of digits that ends in softmax, trained and saved by plain Keras, compiled with an optimizer."""
    keras.utils.set_random_seed(0)
    model = tiny_network()
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    dataset, steps = Task.load("digits").training(64)
    model.fit(dataset(0), epochs=4, steps_per_epoch=steps, verbose=0, shuffle=False)
    path = tmp_path_factory.mktemp("user") / "tiny.keras"
    model.save(path)
    return path

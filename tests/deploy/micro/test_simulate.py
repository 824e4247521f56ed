import subprocess

import numpy as np
import pytest
import tensorflow as tf

from tas_tf.deploy.errors import ExportError
from tas_tf.deploy.lite_graph import LiteGraph
from tas_tf.deploy.micro import simulate as module
from tas_tf.deploy.micro.arena import kept_bytes, planned_bytes
from tas_tf.deploy.micro.simulate import NotMeasuredError, run, simulate
from tests.deploy.conftest import NETWORKS
from tests.parts import slow_except

pytest.importorskip("tflite_micro", reason="the package is there for Linux on x86-64 alone")


@pytest.fixture
def plain(make_int8) -> tuple[bytes, LiteGraph]:
    flatbuffer = make_int8("plain").read_bytes()
    return flatbuffer, LiteGraph.read(flatbuffer)


@pytest.mark.parametrize("name", slow_except(NETWORKS, ["per_pixel"]))
def test_networks_run_in_the_arena_that_is_reported(make_int8, name):
    """As computed, and no larger than measured."""
    flatbuffer = make_int8(name).read_bytes()
    graph = LiteGraph.read(flatbuffer)
    used = simulate(flatbuffer, graph, arena=planned_bytes(graph) + kept_bytes(graph))
    assert simulate(flatbuffer, graph, arena=used.planned + used.kept) == used


def test_a_small_arena_is_an_error_that_says_so(plain):
    with pytest.raises(ExportError, match=r"in an arena of 2,000 bytes: Failed to "):
        simulate(*plain, arena=2000)


def test_other_outputs_than_litert_has_are_an_error(plain, monkeypatch):
    found = module.run_reference

    def changed(*arguments):
        return [array + np.int8(2) * (array < 100) - np.int8(2) * (array >= 100) for array in found(*arguments)]

    monkeypatch.setattr(module, "run_reference", changed)
    with pytest.raises(ExportError, match="`output_0` differs by 2 steps"):
        simulate(*plain, arena=2**17)


def test_outputs_are_those_of_each_example(plain):
    flatbuffer = plain[0]
    images = np.random.default_rng(1).integers(-128, 128, (3, 1, 16, 16, 3)).astype(np.int8)
    (outputs,), _ = run(flatbuffer, [images], num_outputs=1, arena=2**17)
    assert outputs.shape == (3, 1, 4)
    (alone,), _ = run(flatbuffer, [images[1:2]], num_outputs=1, arena=2**17)
    np.testing.assert_array_equal(outputs[1], alone[0])
    assert len({tuple(row) for row in outputs.reshape(3, 4).tolist()}) > 1


def test_without_the_package_nothing_is_measured(plain, monkeypatch):
    monkeypatch.setattr(module, "missing_modules", lambda extra: ("tflite_micro",))
    with pytest.raises(NotMeasuredError, match="the extra `micro` measures it"):
        simulate(*plain, arena=0)


def test_a_run_that_takes_too_long_says_so(plain, monkeypatch):
    def run_long(command, *, timeout, **options):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", run_long)
    with pytest.raises(NotMeasuredError, match="its simulation takes more than 10 minutes"):
        simulate(*plain, arena=2**17)


@pytest.mark.parametrize(
    ("source", "kind", "message"),
    [
        ("import tflite_micro.lost", NotMeasuredError, "can't be imported: ModuleNotFoundError: .*lost"),
        ("raise ImportError('lost.so: no such file')", NotMeasuredError, "can't be imported: ImportError: lost.so"),
        ("raise ValueError('no such kernel.')", ExportError, r"of 131,072 bytes: ValueError: no such kernel\.$"),
    ],
)
def test_packages_may_lie_anywhere_on_the_path_and_their_errors_are_quoted(
    plain, tmp_path, monkeypatch, source, kind, message
):
    """A package in a folder of PYTHONPATH, like one of the user's site, is found, here before the real one."""
    (tmp_path / "tflite_micro").mkdir()
    (tmp_path / "tflite_micro" / "__init__.py").touch()
    (tmp_path / "tflite_micro" / "runtime.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(kind, match=message):
        simulate(*plain, arena=2**17)


def test_inputs_may_be_truth_values():
    @tf.function(input_signature=[tf.TensorSpec([1, 4], name="x"), tf.TensorSpec([1, 4], tf.bool, name="mask")])
    def choose(x, mask):
        return {"y": tf.where(mask, tf.nn.relu(x), tf.zeros([1, 4]))}

    rng = np.random.default_rng(0)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([choose.get_concrete_function()])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: (
        [rng.normal(size=(1, 4)).astype(np.float32), rng.random((1, 4)) < 0.5] for _ in range(8)
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    flatbuffer = converter.convert()
    graph = LiteGraph.read(flatbuffer)
    assert [graph.tensors[number].type for number in graph.inputs.values()] == ["INT8", "BOOL"]
    assert simulate(flatbuffer, graph, arena=2**14).planned == 48

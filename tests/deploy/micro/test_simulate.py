import numpy as np
import pytest

from tas_tf.deploy.errors import ExportError
from tas_tf.deploy.lite_graph import LiteGraph
from tas_tf.deploy.micro import simulate as module
from tas_tf.deploy.micro.arena import kept_bytes, planned_bytes
from tas_tf.deploy.micro.simulate import run, simulate
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
    found = module._reference

    def changed(*arguments):
        return [array + np.int8(2) * (array < 100) - np.int8(2) * (array >= 100) for array in found(*arguments)]

    monkeypatch.setattr(module, "_reference", changed)
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
    assert simulate(*plain, arena=0) is None

"""Real measurements: that files are written and timed, not how long they take."""

from functools import partial

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from keras import layers

from tas_tf.deploy import lite_model
from tas_tf.deploy.errors import ExportError
from tas_tf.deploy.lite_model import TFLiteModel
from tas_tf.deploy.tflite import export_tflite
from tas_tf.latency import measure
from tas_tf.latency.measure import Target, Timing, device_name, runtime_version, time_files, time_shapes, write_student
from tas_tf.space.shape import Shape
from tas_tf.student.build import build_student
from tests.digits import tiny_space


@pytest.fixture(autouse=True)
def _brief(monkeypatch):
    monkeypatch.setattr(measure, "_GROUP_SECONDS", 0.01)


def operations(path) -> list[str]:
    return [operation["op_name"] for operation in Interpreter(str(path))._get_ops_details()]


@pytest.mark.slow
@pytest.mark.parametrize("format", ["fp32", "int8"])
def test_what_is_timed_has_the_operations_of_what_is_deployed(tmp_path, format):
    space = tiny_space()
    shape = Shape.random(space, 0)
    timed = write_student(space, shape, tmp_path / "timed.tflite", Target(format))
    images = np.random.default_rng(0).normal(size=(20, 8, 8, 1)).astype(np.float32)
    deployed = export_tflite(
        build_student(space, shape), tmp_path / "deployed.tflite", format=format, calibration=images
    )
    assert operations(timed) == operations(deployed)


def test_preprocessing_inside_is_timed_as_well(tmp_path):
    space = tiny_space()
    target = Target("int8", preprocessing=lambda: [layers.Rescaling(1 / 255.0)])
    path = write_student(space, Shape.full(space), tmp_path / "net.tflite", target)
    assert TFLiteModel(path).example().shape == (1, 8, 8, 1)
    assert Interpreter(str(path)).get_input_details()[0]["dtype"] is np.uint8


def test_shapes_are_timed_in_order():
    space = tiny_space()
    shapes = [Shape.smallest(space), Shape.full(space)]
    found = list(time_shapes(space, shapes, Target()))
    assert [one.shape for one in found] == shapes
    for one in found:
        assert one.ratio > 0
        assert one.full_ms > 0
        assert one.highest >= one.ratio


def test_the_higher_of_two_halves():
    assert Timing(None, 0.5, 0.1, 1.0).highest == pytest.approx(0.525)


def test_files_take_turns_twice(tmp_path):
    space = tiny_space()
    files = [write_student(space, Shape.random(space, seed), tmp_path / f"{seed}.tflite", Target()) for seed in (0, 1)]
    first, second = time_files(files, 2)
    assert len(first) == len(second) == 2
    assert all(value > 0 for value in (*first, *second))


@pytest.mark.parametrize(("resolver", "expected"), [("AUTO", True), ("BUILTIN_WITHOUT_DEFAULT_DELEGATES", False)])
def test_a_runtime_without_fast_kernels_is_noticed(monkeypatch, resolver, expected):
    plain = partial(Interpreter, experimental_op_resolver_type=OpResolverType[resolver])
    monkeypatch.setattr(lite_model, "Interpreter", plain)
    (timing,) = time_shapes(tiny_space(), [Shape.smallest(tiny_space())], Target())
    assert timing.accelerated is expected


def test_the_machine_has_a_name():
    assert device_name()
    assert runtime_version().startswith("ai-edge-litert 2")


def test_a_format_that_can_not_be_written_is_named(tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise ExportError("LiteRT lacks Erf.")

    monkeypatch.setattr(measure, "write_tflite", fail)
    space = tiny_space()
    with pytest.raises(ExportError, match=r"`latency\.file_format`=int8 can't be timed, .*tiny.*: LiteRT lacks Erf"):
        write_student(space, Shape.full(space), tmp_path / "int8.tflite", Target("int8"))

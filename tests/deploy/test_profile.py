import json
import logging
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from tas_tf.deploy import profile
from tas_tf.deploy.profile import OperatorTime, profile_file
from tas_tf.deploy.saved_model import export_saved_model
from tas_tf.deploy.tflite import export_tflite
from tas_tf.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def narrow(make_classifier, tmp_path_factory) -> Path:
    return export_tflite(make_classifier(activation="softmax"), tmp_path_factory.mktemp("narrow") / "fp32.tflite")


@pytest.fixture(scope="module")
def wide(make_classifier, tmp_path_factory) -> Path:
    return export_tflite(make_classifier(filters=96), tmp_path_factory.mktemp("wide") / "fp32.tflite")


@pytest.fixture(scope="module")
def saved_model(make_classifier, tmp_path_factory) -> Path:
    return export_saved_model(make_classifier(filters=32), tmp_path_factory.mktemp("int8") / "saved_model")


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """Replaces the profiler with another script."""

    def put(source: str) -> None:
        script = tmp_path / "stand_in.py"
        script.write_text(source)
        monkeypatch.setattr(profile, "_PROFILER", script)

    return put


def profile_operators(path: Path, **options) -> tuple[OperatorTime, ...] | None:
    """The types of operator; `None` without a profile."""
    found = profile_file(path, **options)
    return None if found is None else found.operators


def _count(operators: tuple[OperatorTime, ...], kind: str) -> int:
    return sum(operator.count for operator in operators if kind in operator.name.lower())


def test_operators_are_named_and_counted(narrow):
    operators = profile_operators(narrow)
    assert _count(operators, "convolution") == 2
    assert _count(operators, "fully connected") == 1
    assert _count(operators, "softmax") == 1
    assert _count(operators, "mean") == 1
    assert len({operator.name for operator in operators}) == len(operators)


def test_a_network_with_several_outputs(tmp_path):
    """Outputs of other ranks and sizes, so that a wrong buffer would be noticed."""
    images = keras.Input((12, 12, 3))
    x = keras.layers.Conv2D(8, 3, activation="relu")(images)
    map_, row = keras.layers.Conv2D(5, 1)(x), keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(
        images, {"a": keras.layers.Dense(3)(row), "b": map_, "c": keras.layers.Dense(7, "softmax")(row)}
    )
    operators = profile_operators(export_tflite(model, tmp_path / "heads.tflite"))
    assert _count(operators, "convolution") + _count(operators, "fully connected") == 4
    assert sum(operator.share for operator in operators) == pytest.approx(1)


def test_a_network_too_small_for_whole_microseconds_still_has_times(narrow):
    operators = {operator.name: operator for operator in profile_operators(narrow)}
    (convolution,) = (operator for name, operator in operators.items() if "convolution" in name.lower())
    assert convolution.milliseconds > 0
    assert convolution.share > 0


def test_shares_are_those_of_the_times(wide):
    operators = profile_operators(wide)
    times = np.array([operator.milliseconds for operator in operators])
    np.testing.assert_allclose([operator.share for operator in operators], times / times.sum())
    assert list(times) == sorted(times, reverse=True)


def test_a_batch_has_the_operators_of_one_image(narrow, session_program):
    """Together they take no longer than the call that runs them, on a machine of any speed."""
    found = session_program(narrow, sizes=[1, 3, 64])
    assert found[0]["operators"] == found[1]["operators"] == found[2]["operators"]
    for run in found:
        assert run["microseconds"] <= run["wall_microseconds"]


@pytest.fixture
def session_program():
    """Runs a model on batches of several sizes in one session of the profiler, in a separate process."""
    program = """
import json, sys, time
from tas_tf.deploy import litert_profiler as profiler

library, model, *sizes = sys.argv[1:]
session, found = profiler._Session(profiler._Library(library), model, 1), []
for size in map(int, sizes):
    session.feed([size, 8, 8, 3], bytes(4 * size * 8 * 8 * 3))
    session.run()
    started = time.perf_counter_ns()
    operators = session.run()
    wall = (time.perf_counter_ns() - started) / 1000
    total = sum(microseconds for _, microseconds in operators)
    found.append({"operators": [name for name, _ in operators], "microseconds": total, "wall_microseconds": wall})
json.dump(found, sys.stdout)
"""

    def run(model: Path, *, sizes: list[int]) -> list[dict]:
        command = [sys.executable, "-c", program, str(profile._find_library()), str(model), *map(str, sizes)]
        return json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)

    return run


@pytest.mark.parametrize("dtype", [tf.int8, tf.uint8])
def test_integer_models(saved_model, tmp_path, dtype):
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    images = np.random.default_rng(0).standard_normal((4, 1, 8, 8, 3), dtype=np.float32)
    converter.representative_dataset = lambda: ([image] for image in images)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = dtype
    path = tmp_path / "int8.tflite"
    path.write_bytes(converter.convert())

    operators = profile_operators(path, threads=2)
    # int8 in XNNPACK's words: QC8, quantised by channel. uint8 at the door is LiteRT's own affair, beside XNNPACK.
    assert {operator.count for operator in operators if "QC8" in operator.name and "Conv" in operator.name} == {2}
    assert sum(operator.count for operator in operators if operator.name == "QUANTIZE") == (
        2 if dtype.is_unsigned else 0
    )


def test_outlying_rounds_do_not_count_and_times_are_for_one_image(narrow, stand_in):
    # Four rounds of five images: the fastest and the slowest are left out.
    stand_in(
        """
import json
times = (200, 5000, 0, 100)
rounds = [[("CONV", time // 2), ("ADD", time // 2), ("CONV", time // 2), *3 * [("PAD", 0)]] for time in times]
print(json.dumps({"copies": 5, "rounds": rounds}))
"""
    )
    found = profile_file(narrow)
    assert found.operators == (
        OperatorTime("CONV", 2, 0.03, 2 / 3),
        OperatorTime("ADD", 1, 0.015, 1 / 3),
        OperatorTime("PAD", 3, 0.0, 0.0),
    )
    assert found.calls == (("CONV", 0.015), ("ADD", 0.015), ("CONV", 0.015), *3 * (("PAD", 0.0),))


def test_no_order_where_rounds_differ(narrow, stand_in):
    stand_in("""print('{"copies": 1, "rounds": [[["A", 2], ["B", 4]], [["B", 4], ["A", 2]]]}')""")
    found = profile_file(narrow)
    assert found.operators == (OperatorTime("B", 1, 0.004, 2 / 3), OperatorTime("A", 1, 0.002, 1 / 3))
    assert found.calls == ()


def _with_input(saved_model: Path, shape: list[int | None], path: Path) -> Path:
    """A file whose input has a given shape, converted without this project's own export."""
    loaded = tf.saved_model.load(str(saved_model))  # Its variables live as long as this name.
    function = tf.function(loaded.serve, input_signature=[tf.TensorSpec(shape)]).get_concrete_function()
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([function]).convert())
    return path


def test_a_fixed_batch_size_is_kept(saved_model, tmp_path, monkeypatch):
    path = _with_input(saved_model, [4, 8, 8, 3], tmp_path / "four.tflite")
    requests = []
    run = profile._run_profiler

    def spy(request, images, **options):
        found = run(request, images, **options)
        requests.append((request, len(images), found["copies"]))
        return found

    monkeypatch.setattr(profile, "_run_profiler", spy)
    operators = profile_operators(path)
    ((request, size, copies),) = requests
    assert request["shape"] == (4, 8, 8, 3)
    assert size == 4 * 4 * 8 * 8 * 3
    assert request["most_copies"] == copies == 1
    assert operators is None or _count(operators, "convolution") == 2


def test_the_time_of_a_fixed_batch_is_divided_by_it(saved_model, tmp_path, stand_in):
    path = _with_input(saved_model, [4, 8, 8, 3], tmp_path / "four.tflite")
    stand_in("""print('{"copies": 1, "rounds": [[["CONV", 4], ["CONV", 4]]]}')""")
    assert profile_operators(path) == (OperatorTime("CONV", 2, 0.002, 1.0),)


def test_the_memory_of_a_batch_is_bounded(wide, monkeypatch):
    """The limit applies to the bytes of all tensors of the file, which are counted here from their list."""
    tensors = Interpreter(model_path=str(wide)).get_tensor_details()
    # Two convolutions of 96 filters on 8x8 each leave 8 * 8 * 96 floats at least.
    size = sum(int(np.prod(tensor["shape"])) * np.dtype(tensor["dtype"]).itemsize for tensor in tensors)
    assert size > 2 * 4 * 8 * 8 * 96
    monkeypatch.setattr(profile, "_MOST_BYTES", 3 * size + 1)
    assert profile._random_input(wide)[1] == 3
    monkeypatch.setattr(profile, "_MOST_BYTES", 1)
    assert profile._random_input(wide)[1] == 1


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "status -11"),
        ("raise RuntimeError('LiteRtStartProfiler returned status 3.')", "LiteRtStartProfiler returned status 3"),
        ("print('INFO: no JSON')", "could not be run"),
        ("""print('{"copies": 4096, "rounds": [[["CONV", 0]], [["CONV", 0]]]}')""", "microsecond"),
    ],
)
def test_a_profiler_that_fails_leaves_a_reason(narrow, stand_in, caplog, source, reason):
    stand_in(source)
    with caplog.at_level(logging.INFO):
        assert profile_operators(narrow) is None
    assert reason in caplog.text
    assert str(narrow) in caplog.text


def test_a_profiler_that_hangs_is_given_up(narrow, stand_in, caplog):
    caplog.set_level(logging.INFO)
    stand_in("import signal; signal.pause()")
    assert profile_operators(narrow, timeout=0.5) is None
    assert "more than 0.5 seconds" in caplog.text


def test_another_library_gives_no_profile(narrow, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(profile, "_find_library", lambda: Path("libc.so.6"))
    assert profile_operators(narrow) is None
    assert "LiteRtCreateEnvironment" in caplog.text


def test_no_library_gives_no_profile(narrow, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(profile.importlib.util, "find_spec", lambda name: None)
    assert profile_operators(narrow) is None
    assert "no libLiteRt" in caplog.text


@pytest.mark.parametrize("content", [None, b"", b"not a model", b"\x1c\x00\x00\x00TFL3" + bytes(100)])
def test_a_file_that_is_no_model_is_the_users_mistake(tmp_path, content):
    path = tmp_path / "broken.tflite"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"`path` must be a TFLite model.*broken\.tflite"):
        profile_operators(path)


def test_a_model_of_two_inputs_is_refused(tmp_path):
    @tf.function(input_signature=[tf.TensorSpec([1, 4])] * 2)
    def add(a, b):
        return a + b

    path = tmp_path / "two.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([add.get_concrete_function()]).convert())
    with pytest.raises(UserError, match=r"one input. Received.*with 2"):
        profile_operators(path)


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"timeout": 0}])
def test_numbers_must_be_positive(narrow, wrong):
    with pytest.raises(UserError, match=rf"`threads` must be.*{next(iter(wrong))}=0"):
        profile_operators(narrow, **wrong)

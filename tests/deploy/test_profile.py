import logging
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tas_tf.deploy import profile
from tas_tf.deploy.latency import time_interleaved
from tas_tf.deploy.profile import OperatorTime, profile_operators
from tas_tf.deploy.saved_model import export_saved_model
from tas_tf.deploy.tflite import TFLiteModel, export_tflite
from tas_tf.errors import UserError


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
    """Puts another script in the place of the profiler."""

    def put(source: str) -> None:
        script = tmp_path / "stand_in.py"
        script.write_text(source)
        monkeypatch.setattr(profile, "_PROFILER", script)

    return put


def _of_kind(operators: tuple[OperatorTime, ...], kind: str) -> tuple[int, float]:
    found = [operator for operator in operators if kind in operator.name.lower()]
    return sum(operator.count for operator in found), sum(operator.milliseconds for operator in found)


def test_operators_are_named_and_counted(narrow):
    operators = profile_operators(narrow)
    assert _of_kind(operators, "convolution")[0] == 2
    assert _of_kind(operators, "fully connected")[0] == 1
    assert _of_kind(operators, "softmax")[0] == 1
    assert _of_kind(operators, "mean")[0] == 1
    assert len({operator.name for operator in operators}) == len(operators)


def test_shares_are_those_of_the_times(wide):
    operators = profile_operators(wide, rounds=8)
    times = np.array([operator.milliseconds for operator in operators])
    np.testing.assert_allclose([operator.share for operator in operators], times / times.sum())
    assert list(times) == sorted(times, reverse=True)
    assert "convolution" in operators[0].name.lower()


def test_a_wider_network_takes_longer_in_its_convolutions(narrow, wide):
    narrow_count, narrow_time = _of_kind(profile_operators(narrow), "convolution")
    wide_count, wide_time = _of_kind(profile_operators(wide), "convolution")
    assert narrow_count == wide_count == 2
    assert wide_time > 3 * narrow_time  # about 200 times the multiply-adds


def test_operators_together_take_about_as_long_as_a_call(wide):
    call = TFLiteModel(wide).bind(np.zeros((1, 8, 8, 3), np.float32))
    latency = time_interleaved({"call": call})["call"].median_ms
    whole = sum(operator.milliseconds for operator in profile_operators(wide))
    assert latency / 5 < whole < latency * 5


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

    operators = profile_operators(path, threads=2, rounds=1)
    # int8 in XNNPACK's words: QC8, quantised by channel. uint8 at the door is LiteRT's own affair, beside XNNPACK.
    assert {operator.count for operator in operators if "QC8" in operator.name and "Conv" in operator.name} == {2}
    assert sum(operator.count for operator in operators if operator.name == "QUANTIZE") == (
        2 if dtype.is_unsigned else 0
    )


def test_outlying_rounds_do_not_count(narrow, stand_in):
    # Four rounds: the fastest and the slowest are left out.
    stand_in(
        """
import json
times = (40, 1000, 0, 20)
print(json.dumps([{"CONV": (2, time), "ADD": (1, time // 2), "PAD": (3, 0)} for time in times]))
"""
    )
    assert profile_operators(narrow) == (
        OperatorTime("CONV", 2, 0.03, 2 / 3),
        OperatorTime("ADD", 1, 0.015, 1 / 3),
        OperatorTime("PAD", 3, 0.0, 0.0),
    )


def test_rounds_stop_in_time(wide):
    # A million rounds would take minutes.
    assert profile_operators(wide, rounds=1_000_000, timeout=3) is not None


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "status -11"),
        ("raise RuntimeError('LiteRtStartProfiler returned status 3.')", "LiteRtStartProfiler returned status 3"),
        ("print('INFO: no JSON')", "could not be run"),
        ("print('[{\"CONV\": [2, 0]}]')", "microsecond"),
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
    stand_in("import time; time.sleep(60)")
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
    with pytest.raises(UserError, match=r"one input.*of 2 and 1"):
        profile_operators(path)


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"rounds": 0}, {"timeout": 0}])
def test_numbers_must_be_positive(narrow, wrong):
    with pytest.raises(UserError, match=rf"`threads` and `rounds`.*{next(iter(wrong))}=0"):
        profile_operators(narrow, **wrong)

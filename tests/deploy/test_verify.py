import contextlib

import numpy as np
import pytest

from tas_tf.deploy.errors import ExportError
from tas_tf.deploy.scored_on import ScoredOn
from tas_tf.deploy.verify import ArtefactMetrics, check_score, size_on_disk, verify_artefact
from tas_tf.errors import UserError
from tas_tf.objectives.classification import Classification
from tas_tf.objectives.decisions import Binary
from tas_tf.objectives.regression import Regression


class Fixed:
    """An artefact that returns given outputs."""

    def __init__(self, outputs):
        self.outputs = np.array(outputs, np.float32)

    def predict(self, images, *, batch_size=128):
        return self.outputs


EXPECTED = np.array([[4.0, 1.0], [0.0, 2.0], [3.0, 2.9], [1.0, 0.0]], np.float32)


def make_test(labels, objective=None, activation="linear") -> ScoredOn:
    images = np.zeros((len(labels), 2, 2, 1))
    return ScoredOn(images, np.array(labels), objective or Classification(2), {"output": activation})


def verify(outputs, path, tolerance):
    return verify_artefact(
        Fixed(outputs),
        path,
        name="It",
        test=make_test([0, 0, 0, 0]),
        expected=EXPECTED,
        tolerance=tolerance,
    )


def test_metrics(tmp_path):
    (tmp_path / "variables").mkdir()
    (tmp_path / "a").write_bytes(b"x" * 10)
    (tmp_path / "variables" / "b").write_bytes(b"x" * 7)
    # The third image changes its class by a difference of 0.2.
    metrics = verify([[4, 1], [0, 2], [2.8, 2.9], [1, 0]], tmp_path, tolerance=0.06)
    assert metrics.accuracy == 0.5
    assert metrics.agreement == 0.75
    assert metrics.max_abs_diff == pytest.approx(0.2, abs=1e-6)
    assert metrics.bytes == 17
    assert metrics.latency_ms is None


def test_tolerance_is_relative_to_the_largest_output(tmp_path):
    off = EXPECTED + np.float32(0.2)
    assert verify(off, tmp_path, 0.051).max_abs_diff == pytest.approx(0.2, abs=1e-6)
    with pytest.raises(ExportError, match=r"max_abs_diff 0\.2 on 4 images.*Agreement 1\.0000, accuracy 0\.7500"):
        verify(off, tmp_path, 0.049)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_outputs_that_are_no_numbers_fail(tmp_path, bad):
    with pytest.raises(ExportError):
        verify(np.full_like(EXPECTED, bad), tmp_path, 0.1)


def test_expected_outputs_that_are_no_numbers_fail(tmp_path):
    with pytest.raises(ExportError):
        verify_artefact(
            Fixed([[1.0, 0.0]]),
            tmp_path,
            name="It",
            test=make_test([0]),
            expected=np.array([[np.inf, 0.0]]),
            tolerance=0.1,
        )


def test_other_shape_fails(tmp_path):
    with pytest.raises(ExportError, match="shape"):
        verify(np.zeros((4, 3)), tmp_path, 0.1)


def test_without_tolerance_any_number_passes(tmp_path):
    off = [[-1e6, 0], [0, 1e9], [0, 1], [1, 0]]
    metrics = verify(off, tmp_path, None)
    assert metrics.max_abs_diff == pytest.approx(1e9)
    assert metrics.agreement == 0.5
    assert metrics.accuracy == 0.25


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_without_tolerance_what_is_no_number_still_fails(tmp_path, bad):
    outputs = EXPECTED.copy()
    outputs[2, 1] = bad
    with pytest.raises(ExportError, match="It differs from its Keras model"):
        verify(outputs, tmp_path, None)
    with pytest.raises(ExportError, match="shape"):
        verify(np.zeros((4, 3)), tmp_path, None)


def check(score, expected, max_drop, format="int8", name="It") -> None:
    """Checks a file against a model that recognises a share of many images."""
    count = 10_000
    test = make_test([0] * count)
    outputs = np.tile(np.float32([0, 1]), (count, 1))
    outputs[: round(expected * count)] = [1, 0]
    metrics = ArtefactMetrics("accuracy", score, score, 0.9, 1000, None, None, 0.1)
    check_score(metrics, format, name=name, test=test, expected=outputs, max_drop=max_drop)


@pytest.mark.parametrize(
    ("expected", "accuracy", "max_drop"),
    [
        (0.97, 0.95, 0.02),  # 0.97 - 0.95 is above 0.02 in floating point
        (0.3, 0.1, 0.2),
        (1.0, 0.995, 0.005),
        (0.9, 0.9, 0.0),
        (0.9, 0.95, 0.0),
        (1.0, 0.0, 1.0),
    ],
)
def test_exactly_the_drop_allowed_passes(expected, accuracy, max_drop):
    check(accuracy, expected, max_drop)


@pytest.mark.parametrize("images", [10, 10_000, 1_000_000])
def test_one_image_more_fails(images):
    with pytest.raises(ExportError):
        check(0.6 - 1 / images, 0.9, 0.3)


def test_errors_may_grow_by_a_share_of_a_constants_error():
    """Always answering 1.5, the median, is off by 1 on average."""
    test = make_test([[0.0], [1.0], [2.0], [3.0]], Regression(1))
    expected = test.labels + 0.1
    assert test.constant_score == 1.0
    for score, allowed in ((0.119, True), (0.121, False)):
        metrics = ArtefactMetrics("mae", score, None, 0.9, 1000, None, None, 0.1)
        with (
            contextlib.nullcontext()
            if allowed
            else pytest.raises(ExportError, match=r"loses 2\.10 percent of the best constant's mae")
        ):
            check_score(metrics, "int8", name="It", test=test, expected=expected, max_drop=0.02)


def test_decisions_count_from_a_half_on_if_the_file_ends_in_a_sigmoid(tmp_path):
    outputs = np.array([[0.2], [0.6], [0.7], [0.4]], np.float32)
    test = make_test([[0.0], [1.0], [0.0], [0.0]], Binary(1), "sigmoid")
    metrics = verify_artefact(Fixed(outputs), tmp_path, name="It", test=test, expected=outputs, tolerance=0.1)
    assert (metrics.metric, metrics.score, metrics.accuracy, metrics.agreement) == ("accuracy", 0.75, 0.75, 1.0)


@pytest.mark.parametrize(
    ("format", "advice"),
    [
        ("int8", ["qat_int8", "`calibration_images`", "dynamic"]),
        ("qat_int8", ["`qat.epochs`", "`qat.lr`", "dynamic"]),
        ("dynamic", ["fp16"]),
        ("fp16", ["fp32"]),
        ("fp32", []),
    ],
)
def test_a_drop_is_told_with_figures_and_what_to_try(format, advice):
    with pytest.raises(ExportError) as raised:
        check(0.8765, 0.9321, 0.015, format, f"The student's {format}")
    message = str(raised.value)
    assert message.startswith(f"The student's {format} loses 5.56 points")
    for part in ("0.9321", "0.8765", "`max_accuracy_drop` allows 1.50", *advice):
        assert part in message
    assert ("Try" in message) == bool(advice)


def test_size_of_a_file(tmp_path):
    (tmp_path / "f").write_bytes(b"12345")
    assert size_on_disk(tmp_path / "f") == 5


@pytest.mark.parametrize(
    ("images", "labels", "match"),
    [
        (np.zeros(3), np.zeros(3, int), "images"),
        (np.zeros((3, 4, 4, 1)), np.zeros(2, int), "labels"),
        (np.zeros((3, 4, 4, 1)), np.zeros((3, 10)), "labels"),
        (np.zeros((3, 4, 4, 1)), np.zeros(3), "labels"),
        (np.zeros((3, 4, 4, 1)), np.full(3, 2), "labels"),
        (np.zeros((0, 4, 4, 1)), np.zeros(0, int), "images"),
    ],
)
def test_bad_test_sets(images, labels, match):
    with pytest.raises(UserError, match=f"`{match}`"):
        ScoredOn(images, labels, Classification(2), {"output": "linear"})

import numpy as np
import pytest

from tas_tf.deploy.errors import ExportError
from tas_tf.deploy.verify import ArtefactMetrics, check_accuracy, check_test_set, size_on_disk, verify_artefact
from tas_tf.errors import UserError


class Fixed:
    """An artefact that returns given outputs."""

    def __init__(self, outputs):
        self.outputs = np.array(outputs, np.float32)

    def predict(self, images, *, batch_size=128):
        return self.outputs


EXPECTED = np.array([[4.0, 1.0], [0.0, 2.0], [3.0, 2.9], [1.0, 0.0]], np.float32)


def verify(outputs, path, tolerance):
    return verify_artefact(
        Fixed(outputs),
        path,
        name="It",
        images=np.zeros((4, 2, 2, 1)),
        labels=np.array([0, 0, 0, 0]),
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
            images=np.zeros((1, 2, 2, 1)),
            labels=np.array([0]),
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


def accurate(accuracy):
    """Metrics of a file with the given accuracy."""
    return ArtefactMetrics(accuracy, 0.9, 1000, None, None, 0.1)


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
    check_accuracy(accurate(accuracy), "int8", name="It", expected=expected, max_drop=max_drop)


@pytest.mark.parametrize("images", [10, 10_000, 1_000_000])
def test_one_image_more_fails(images):
    max_drop = 0.3
    with pytest.raises(ExportError):
        check_accuracy(accurate(0.6 - 1 / images), "int8", name="It", expected=0.9, max_drop=max_drop)


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
        check_accuracy(accurate(0.8765), format, name=f"The student's {format}", expected=0.9321, max_drop=0.015)
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
        (np.zeros((3, 4)), np.zeros(3, int), "images"),
        (np.zeros((3, 4, 4, 1)), np.zeros(2, int), "labels"),
        (np.zeros((3, 4, 4, 1)), np.zeros((3, 10)), "labels"),
        (np.zeros((0, 4, 4, 1)), np.zeros(0, int), "images"),
    ],
)
def test_bad_test_sets(images, labels, match):
    with pytest.raises(UserError, match=f"`{match}`"):
        check_test_set(images, labels)

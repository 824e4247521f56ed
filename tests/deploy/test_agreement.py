"""When a file agrees with its model: number by number or, if rounded to 8 bits, by related outputs."""

import numpy as np
import pytest

from tas_tf.deploy.agreement import check_agreement, probe_images, some_of
from tas_tf.deploy.errors import ExportError

RNG = np.random.default_rng(0)
IMAGES = np.arange(8, dtype=np.float32).reshape(8, 1, 1, 1)
LOGITS = RNG.normal(0, 3, (8, 10))


def check(outputs, expected=LOGITS, format="int8"):
    def run(table):
        return lambda images: table[images.ravel().astype(int)]

    check_agreement(run(np.asarray(outputs)), run(np.asarray(expected)), IMAGES, format=format, name="The file")


@pytest.mark.parametrize(("format", "share"), [("saved_model", 1e-3), ("fp32", 1e-3), ("fp16", 2e-2)])
def test_floats_are_compared_number_by_number(format, share):
    off = LOGITS.copy()
    off[3, 4] += 0.9 * share * np.abs(LOGITS).max()
    check(off, format=format)
    off[3, 4] += 0.2 * share * np.abs(LOGITS).max()
    with pytest.raises(ExportError, match="The file differs"):
        check(off, format=format)


@pytest.mark.parametrize(
    "useless",
    [np.zeros_like(LOGITS), LOGITS[:, ::-1], LOGITS[::-1], np.full_like(LOGITS, np.nan), RNG.normal(0, 3, (8, 10))],
    ids=["constant", "other_classes", "other_images", "no_numbers", "unrelated"],
)
def test_a_useless_file_of_8_bits_is_refused(useless):
    with pytest.raises(ExportError, match="The file differs"):
        check(useless)


def test_coarse_rounding_is_no_alarm():
    check(LOGITS + RNG.normal(0, 0.4 * LOGITS.std(), LOGITS.shape))
    # A network with random weights: all classes nearly alike, so that a step of 8 bits is much of what differs.
    nearly = 0.25 + RNG.normal(0, 1e-3, (8, 4))
    check(np.rint(nearly * 256) / 256, nearly)


def test_another_shape_and_no_numbers_at_all():
    with pytest.raises(ExportError, match="shape"):
        check(LOGITS[:, :5])
    with pytest.raises(ExportError, match="NaN or infinity"):
        check(LOGITS, np.full_like(LOGITS, np.nan))


def test_images_on_which_keras_overflows_do_not_count():
    expected, outputs = LOGITS.copy(), LOGITS.copy()
    expected[5:], outputs[5:] = np.inf, 0
    check(outputs, expected)


def test_probes_have_the_type_and_the_range_of_the_input():
    floats, pixels = probe_images((None, 6, 5, 3), "float32"), probe_images((None, None, None, 1), "uint8")
    assert (floats.shape, pixels.shape) == ((8, 6, 5, 3), (8, 32, 32, 1))
    assert floats[:4].min() < 0
    assert floats[4:].max() > 200
    assert pixels.dtype == np.uint8
    assert some_of(np.arange(100)).tolist() == [0, 14, 28, 42, 57, 71, 85, 99]
    assert len(some_of(np.arange(3))) == 3

"""Calibration images that a network wasn't trained on are told."""

from dataclasses import replace

import numpy as np
import pytest

from tas_tf.data.preprocessing import Preprocessing
from tas_tf.deploy.calibration import check_range
from tas_tf.deploy.metadata import Metadata
from tas_tf.deploy.tflite import export_tflite
from tas_tf.errors import UserError

METADATA = Metadata("net", ["a", "b"], (8, 8, 3), Preprocessing("none"), False, False, input_range=(0.0, 1.0))
PIXELS = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)


def test_images_of_another_scale_are_told(make_classifier, tmp_path):
    with pytest.raises(UserError, match=r"`calibration` must be scaled .* about 0 to 1\. Received: 0 to 255"):
        export_tflite(make_classifier(), tmp_path / "x", format="int8", calibration=PIXELS, metadata=METADATA)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("trained", "scale", "fits"),
    [
        ((0.0, 1.0), 1 / 255, True),
        ((-1.0, 1.0), 1 / 255, True),
        ((-2.1, 2.6), 1 / 255, True),
        ((0.0, 255.0), 1, True),
        ((-1.0, 1.0), 1, False),
        ((-2.1, 2.6), 1, False),
        ((0.0, 255.0), 1 / 255, False),
        (None, 1, True),
        ((0.0, 0.0), 1, True),
    ],
)
def test_only_ranges_that_are_far_off_are_refused(trained, scale, fits):
    images, metadata = (PIXELS * scale).astype(np.float32), replace(METADATA, input_range=trained)
    if fits:
        check_range(images, metadata)
    else:
        with pytest.raises(UserError, match="must be scaled like the training images"):
            check_range(images, metadata)


def test_files_do_not_hold_the_range():
    assert METADATA.files("int8") == replace(METADATA, input_range=None).files("int8")

"""Descriptions of files for the programs that run them."""

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from tas_tf.data.preprocessing import Preprocessing
from tas_tf.deploy.described import describe_file
from tas_tf.deploy.metadata import Metadata
from tas_tf.deploy.tflite import export_tflite
from tas_tf.errors import UserError


def test_integers_come_with_their_scales_and_pixels_with_their_map(make_classifier, tmp_path):
    calibration = np.random.default_rng(0).normal(size=(16, 8, 8, 3)).astype(np.float32)
    metadata = Metadata("net", tuple("abcd"), (8, 8, 3), Preprocessing("scale_-1_1"), inside=False, probabilities=False)
    options = {"format": "int8", "calibration": calibration, "metadata": metadata}
    path = export_tflite(make_classifier(), tmp_path / "int8.tflite", **options)
    found = describe_file(path)
    model = Interpreter(str(path))
    for described, detail in zip(
        found["inputs"] + found["outputs"], model.get_input_details() + model.get_output_details(), strict=True
    ):
        assert described["dtype"] == "int8"
        assert (described["scale"], described["zero_point"]) == detail["quantization"]
        assert described["shape"][1:] == detail["shape"].tolist()[1:]
    assert (found["task"], found["output"], found["num_labels"]) == ("classification", "logits", 4)
    assert (found["channel_order"], found["pixel_scale"], found["pixel_offset"]) == ("rgb", [1 / 127.5], [-1.0])


def test_floats_have_none_and_metadata_may_be_missing(make_classifier, tmp_path):
    found = describe_file(export_tflite(make_classifier(), tmp_path / "fp32.tflite"))
    assert set(found) == {"inputs", "outputs"}
    assert (found["inputs"][0]["scale"], found["inputs"][0]["zero_point"]) == (None, None)
    assert found["inputs"][0]["shape"] == [1, 8, 8, 3]


def test_a_file_that_is_no_model(tmp_path):
    (tmp_path / "broken.tflite").write_bytes(b"none")
    with pytest.raises(UserError, match="must be a TFLite model"):
        describe_file(tmp_path / "broken.tflite")

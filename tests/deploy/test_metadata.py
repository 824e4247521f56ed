import json
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
import tensorflow as tf

from tas_tf.data.preprocessing import PREPROCESSING_KINDS, Preprocessing
from tas_tf.deploy.lite_model import TFLiteModel
from tas_tf.deploy.metadata import EXTRA_FOLDER, Metadata, append_files, read_metadata
from tas_tf.deploy.saved_model import LoadedSavedModel, export_saved_model
from tas_tf.deploy.tflite import export_tflite
from tas_tf.errors import UserError
from tas_tf.version import __version__

LABELS = ("ant", "hot  dog ", "two\nlines", "naïve 猫", "", "next\x85line\u2028")
READ_LABELS = ["ant", "hot dog", "two lines", "naïve 猫", "", "next line"]
SHAPE = {"version": 1, "network": "naïve", "widths": {"conv": 5}, "depths": {"stage_1": 2}}


def preprocessing(kind: str) -> Preprocessing:
    return (
        Preprocessing(kind, (120.5, 99.25, 7.0), (61.0, 0.75, 200.0)) if kind == "standardise" else Preprocessing(kind)
    )


def metadata(kind: str = "torch", **changes) -> Metadata:
    fields = {
        **{"network": "my/net", "labels": LABELS, "input_shape": (8, 8, 3), "preprocessing": preprocessing(kind)},
        **{"inside": False, "probabilities": False, "shape": SHAPE},
    }
    return Metadata(**{**fields, **changes})


@pytest.fixture(scope="module")
def model(make_classifier):
    return make_classifier(seed=4)


@pytest.fixture(scope="module")
def saved_model(model, tmp_path_factory):
    """Holds its files, which conversion ignores."""
    return export_saved_model(model, tmp_path_factory.mktemp("described") / "saved_model", metadata=metadata())


@pytest.fixture(scope="module")
def bare(saved_model, tmp_path_factory):
    """A file without metadata."""
    return export_tflite(saved_model, tmp_path_factory.mktemp("bare") / "fp32.tflite")


@pytest.fixture(scope="module")
def described(bare):
    path = bare.with_name("described.tflite")
    path.write_bytes(append_files(bare.read_bytes(), metadata().files("fp32")))
    return path


def expected_metadata(format: str) -> dict:
    return {
        "tas_tf": __version__,
        "network": "my/net",
        "format": format,
        "input": {
            **{"height": 8, "width": 8, "channels": 3, "resize": "squash", "channel_order": "rgb"},
            "scale": pytest.approx([1 / 58.395, 1 / 57.12, 1 / 57.375]),
            "offset": pytest.approx([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225]),
            **{"preprocessing": "torch", "inside": False},
        },
        **{"task": "classification", "output": "logits"},
        "shape": SHAPE,
        "labels": READ_LABELS,
    }


def test_both_kinds_of_artefact_are_read_back(described, saved_model):
    assert read_metadata(described) == expected_metadata("fp32")
    assert read_metadata(str(saved_model)) == expected_metadata("saved_model")


def test_interpreters_pass_over_it(bare, described, model, test_set):
    outputs = TFLiteModel(described).predict(test_set[0])
    np.testing.assert_array_equal(outputs, TFLiteModel(bare).predict(test_set[0]))
    np.testing.assert_allclose(outputs, model.predict(test_set[0], verbose=0), atol=1e-4)


def test_tensorflow_passes_over_it(saved_model, model, test_set):
    outputs = LoadedSavedModel(saved_model).predict(test_set[0])
    np.testing.assert_allclose(outputs, model.predict(test_set[0], verbose=0), atol=1e-4)
    assert {path.name for path in (saved_model / EXTRA_FOLDER).iterdir()} == {"labels.txt", "metadata.json"}


def test_any_unzip_reads_it(bare, described):
    with zipfile.ZipFile(described) as archive:
        assert archive.testzip() is None
        entries = archive.infolist()
        assert [entry.filename for entry in entries] == ["labels.txt", "metadata.json"]
        assert all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
        assert archive.read("labels.txt").decode().split("\n") == [*READ_LABELS, ""]
        assert json.loads(archive.read("metadata.json"))["network"] == "my/net"
    # Not compressed, hence the bytes themselves stand in the file, behind the model.
    content, flatbuffer = described.read_bytes(), bare.read_bytes()
    assert content.startswith(flatbuffer)
    assert "naïve 猫\n".encode() in content[len(flatbuffer) :]


def test_the_same_contents_are_the_same_bytes(bare, monkeypatch):
    flatbuffer = bare.read_bytes()
    once = append_files(flatbuffer, metadata().files("fp32"))
    monkeypatch.setattr(time, "time", lambda: 2e9)  # years later
    assert append_files(flatbuffer, metadata().files("fp32")) == once
    assert append_files(flatbuffer, metadata().files("fp16")) != once


@pytest.mark.parametrize("kind", PREPROCESSING_KINDS)
def test_with_preprocessing_inside_pixels_are_taken_as_they_are(kind):
    fed = metadata(kind, inside=True).describe("int8")["input"]
    assert (fed["scale"], fed["offset"], fed["channel_order"]) == ([1.0], [0.0], "rgb")
    assert (fed["preprocessing"], fed["inside"]) == (kind, True)


def test_output_and_shape():
    described = metadata(probabilities=True, shape=None).describe("fp32")
    assert described["output"] == "probabilities"
    assert described["shape"] is None


@pytest.mark.parametrize("kind", PREPROCESSING_KINDS)
def test_what_input_says_is_what_the_network_was_trained_with(bare, model, kind, tmp_path):
    path = tmp_path / "fp32.tflite"
    path.write_bytes(append_files(bare.read_bytes(), metadata(kind).files("fp32")))
    pixels = np.random.default_rng(3).integers(0, 256, (9, 8, 8, 3), dtype=np.uint8)

    fed = read_metadata(path)["input"]
    images = pixels[..., ::-1] if fed["channel_order"] == "bgr" else pixels
    images = (images * np.array(fed["scale"]) + np.array(fed["offset"])).astype(np.float32)
    outputs = TFLiteModel(path).predict(images)

    expected = model.predict(preprocessing(kind).apply(tf.constant(pixels)), verbose=0)
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    # The kinds differ in more than that.
    if kind != "none":
        raw = model.predict(pixels.astype(np.float32), verbose=0)
        assert np.abs(outputs - raw).max() > 1e-2 * np.abs(expected).max()


def test_what_carries_nothing_is_named(bare, model, tmp_path):
    folder = export_saved_model(model, tmp_path / "saved_model")
    for path in (bare, folder, tmp_path / "missing.tflite"):
        with pytest.raises(UserError, match=f"`path` must be a file exported with metadata.*{path.name}"):
            read_metadata(path)


def test_an_archive_of_other_files(bare, tmp_path):
    path = tmp_path / "labels_alone.tflite"
    path.write_bytes(append_files(bare.read_bytes(), {"labels.txt": b"ant\n"}))
    with pytest.raises(UserError, match=r"metadata\.json"):
        read_metadata(path)


def test_damaged_archives(described, tmp_path):
    content, path = described.read_bytes(), tmp_path / "damaged.tflite"
    changed = bytearray(content)
    changed[content.index(b"my/net")] ^= 1  # no longer what its checksum says
    for damaged in (content[:-1], content[:-30], content[: content.index(b"my/net")], bytes(changed)):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="`path`"):
            read_metadata(path)


READER = """
import json, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as archive:
    print(json.loads(archive.read("metadata.json"))["network"], len(archive.read("labels.txt").decode().splitlines()))
"""


def test_the_standard_library_is_enough(described):
    done = subprocess.run([sys.executable, "-S", "-c", READER, described], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["my/net", str(len(LABELS))]

import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from tas_tf.data.preprocessing import Preprocessing
from tas_tf.deploy import tflite
from tas_tf.deploy.converters import CONVERTERS
from tas_tf.deploy.errors import ExportError
from tas_tf.deploy.lite_model import TFLiteModel
from tas_tf.deploy.metadata import Metadata, read_metadata
from tas_tf.deploy.saved_model import LoadedSavedModel, export_saved_model, serving_model, write_frozen
from tas_tf.deploy.settings import INTEGER_FORMATS
from tas_tf.deploy.tflite import export_tflite, file_size, write_tflite
from tas_tf.errors import UserError
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import build_student
from tests.networks import make, randomize


@pytest.fixture(scope="module")
def plain_file(make_classifier, tmp_path_factory) -> Path:
    """The first of the classifiers in fp32."""
    return export_tflite(make_classifier(), tmp_path_factory.mktemp("plain") / "net.tflite")


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_outputs_equal_keras_at_any_batch_size(make_classifier, test_set, tmp_path, activation):
    model, images = make_classifier(activation=activation), test_set[0]
    loaded = TFLiteModel(export_tflite(model, tmp_path / "model.tflite"))
    expected = model.predict(images, verbose=0)
    for batch_size in (1, 5, 16, 128):
        np.testing.assert_allclose(loaded.predict(images, batch_size=batch_size), expected, atol=1e-4)


def test_batch_normalisation_is_folded_and_batch_is_free(plain_file, capsys):
    assert Interpreter(model_path=str(plain_file)).get_input_details()[0]["shape_signature"].tolist() == [-1, 8, 8, 3]
    tf.lite.experimental.Analyzer.analyze(model_path=str(plain_file))
    operations = re.findall(r"Op#\d+ (\w+)", capsys.readouterr().out)
    # ReLU and normalisation went into the convolutions: the first, the second, the sum, the head.
    assert operations == ["CONV_2D", "CONV_2D", "ADD", "MEAN", "FULLY_CONNECTED"]


def test_saved_model_folder_as_source_gives_the_same_function(make_classifier, plain_file, test_set, tmp_path):
    folder = export_saved_model(make_classifier(), tmp_path / "saved_model")
    from_folder, from_model = TFLiteModel(export_tflite(folder, tmp_path / "net.tflite")), TFLiteModel(plain_file)
    np.testing.assert_array_equal(from_folder.predict(test_set[0]), from_model.predict(test_set[0]))


def test_threads_do_not_change_outputs(plain_file, test_set):
    one, two = (TFLiteModel(plain_file, num_threads=threads).predict(test_set[0]) for threads in (1, 2))
    np.testing.assert_allclose(one, two, atol=1e-6)


def test_unknown_format_lists_the_known(make_classifier, tmp_path):
    with pytest.raises(UserError, match=r"one of fp32, fp16, dynamic, int8, qat_int8\. Received: 'int4'"):
        export_tflite(make_classifier(), tmp_path / "model.tflite", format="int4")


def test_failed_conversion_keeps_the_earlier_file(make_classifier, tmp_path, monkeypatch):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"earlier")

    def fail(saved_model, calibration):
        raise RuntimeError("no kernel for this")

    monkeypatch.setattr(tflite, "CONVERTERS", MappingProxyType({"fp32": fail}))
    with pytest.raises(ExportError, match="no kernel for this"):
        export_tflite(make_classifier(), path)
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_bad_sources_are_user_errors(tmp_path):
    with pytest.raises(UserError, match="source"):
        export_tflite(tmp_path, tmp_path / "model.tflite")
    with pytest.raises(UserError, match="TFLite model"):
        TFLiteModel(tmp_path / "missing.tflite")
    (tmp_path / "broken.tflite").write_bytes(b"nonsense" * 8)
    with pytest.raises(UserError, match="TFLite model"):
        TFLiteModel(tmp_path / "broken.tflite")


FOREIGN = """
import sys
sys.modules["tas_tf"] = None  # any import of it now fails
sys.modules["export"] = None
sys.modules["keras"] = None
import numpy as np, tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

folder, images = sys.argv[1], np.load(sys.argv[1] + "/images.npy")
loaded = tf.saved_model.load(folder + "/saved_model")
(saved,) = loaded.signatures["serving_default"](images=tf.constant(images)).values()
runner = Interpreter(model_path=folder + "/fp32.tflite").get_signature_runner("serving_default")
(lite,) = runner(images=images).values()
np.savez(folder + "/outputs.npz", saved=saved, lite=lite)
"""


@pytest.mark.slow
def test_artefacts_run_where_this_package_cannot_be_imported(make_classifier, test_set, tmp_path):
    model, images = make_classifier(activation="softmax"), test_set[0][:5]
    folder = export_saved_model(model, tmp_path / "saved_model")
    export_tflite(folder, tmp_path / "fp32.tflite")
    np.save(tmp_path / "images.npy", images)

    subprocess.run([sys.executable, "-c", FOREIGN, str(tmp_path)], check=True, cwd=tmp_path)

    outputs = np.load(tmp_path / "outputs.npz")
    for name in ("saved", "lite"):
        np.testing.assert_allclose(outputs[name], model(images), atol=1e-5)


METADATA = Metadata("net", ("ant", "bee", "cat", "dog"), (8, 8, 3), Preprocessing("torch"), False, False)


@dataclass(frozen=True)
class Formats:
    """A network in every format, the images that it was calibrated with, and what files are to compute.

    `qat_int8` is measured by the network with fake quantisation, the others by the original.
    """

    files: Mapping[str, Path]
    images: np.ndarray
    expected: Mapping[str, np.ndarray]


@pytest.fixture(scope="module", params=[pytest.param(None, marks=pytest.mark.slow, id="logits"), "softmax"])
def formats(request, make_classifier, make_pixels, settle, make_quantised, tmp_path_factory) -> Formats:
    images = (make_pixels(64, seed=5).astype(np.float32) - 128) / 74
    # The second kernel has 1,296 weights: those below 1,024 stay as they are in `dynamic`.
    model = settle(make_classifier(seed=2, filters=12, activation=request.param), images)
    quantised = make_quantised(model, images)
    folder = tmp_path_factory.mktemp("formats")
    saved_model = export_saved_model(model, folder / "saved_model")
    files, expected = {}, {}
    for format in CONVERTERS:
        network, source = (quantised, quantised) if format == "qat_int8" else (model, saved_model)
        files[format] = export_tflite(
            source, folder / f"{format}.tflite", format=format, calibration=images, metadata=METADATA
        )
        expected[format] = network.predict(images, verbose=0)
    return Formats(files, images, expected)


def stored_types(path: Path) -> tuple[set[str], set[tuple[tuple[int, ...], str]]]:
    """Types of all tensors in the flatbuffer itself, and shape and type of those that hold weights."""
    names = {number: name for name, number in vars(schema.TensorType).items() if isinstance(number, int)}
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    tensors = [tensor for graph in model.subgraphs for tensor in graph.tensors]
    held = [tensor for tensor in tensors if model.buffers[tensor.buffer].data is not None and len(tensor.shape) > 1]
    return {names[each.type] for each in tensors}, {(tuple(each.shape.tolist()), names[each.type]) for each in held}


FIRST, SECOND, DENSE = (12, 3, 3, 3), (12, 3, 3, 12), (4, 12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format", "first", "second"),
    [
        ("fp32", "FLOAT32", "FLOAT32"),
        ("fp16", "FLOAT16", "FLOAT16"),
        ("dynamic", "FLOAT32", "INT8"),
        ("int8", "INT8", "INT8"),
        ("qat_int8", "INT8", "INT8"),
    ],
)
def test_weights_are_stored_as_the_format_says(formats, format, first, second):
    _, weights = stored_types(formats.files[format])
    assert weights == {(FIRST, first), (SECOND, second), (DENSE, first)}


@pytest.mark.parametrize("format", INTEGER_FORMATS)
def test_integer_files_hold_no_float_at_all(formats, format):
    path = formats.files[format]
    assert stored_types(path)[0] == {"INT8", "INT32"}
    for resolver in (OpResolverType.AUTO, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES):
        interpreter = Interpreter(model_path=str(path), experimental_op_resolver_type=resolver)
        interpreter.allocate_tensors()
        assert {tensor["dtype"] for tensor in interpreter.get_tensor_details()} == {np.int8, np.int32}


@pytest.mark.parametrize("format", CONVERTERS)
def test_ends_have_a_free_batch_size_and_the_type_promised(formats, format):
    interpreter = Interpreter(model_path=str(formats.files[format]))
    (images,), (outputs,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert images["shape_signature"].tolist() == [-1, 8, 8, 3]
    assert outputs["shape_signature"].tolist() == [-1, 4]
    wanted = np.int8 if format in INTEGER_FORMATS else np.float32
    assert (images["dtype"], outputs["dtype"]) == (wanted, wanted)


@pytest.mark.parametrize("format", CONVERTERS)
def test_outputs_are_near_the_networks(formats, format):
    outputs, expected = TFLiteModel(formats.files[format]).predict(formats.images), formats.expected[format]
    assert (outputs.dtype, outputs.shape) == (np.float32, (64, 4))
    step = Interpreter(model_path=str(formats.files[format])).get_output_details()[0]["quantization"][0]
    # In steps of the output where that is quantised, else as a share of the largest.
    allowed = {"fp32": 1e-5, "fp16": 2e-3, "dynamic": 0.02}.get(format, 0) * np.abs(expected).max() or 4 * step
    assert np.abs(outputs - expected).max() <= allowed
    assert (outputs.argmax(-1) == expected.argmax(-1)).mean() >= 0.95


@pytest.mark.parametrize("format", CONVERTERS)
def test_batch_size_does_not_matter(formats, format):
    loaded = TFLiteModel(formats.files[format])
    at_once = loaded.predict(formats.images)
    for batch_size in (1, 7, 32):
        np.testing.assert_allclose(loaded.predict(formats.images, batch_size=batch_size), at_once, atol=1e-5)


def run_raw(path: Path, images: np.ndarray) -> tuple[np.ndarray, dict, dict]:
    """Runs a file on its own input type; returns its raw outputs and the details of input and output."""
    interpreter = Interpreter(model_path=str(path))
    (fed,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(fed["index"], images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(fed["index"], images)
    interpreter.invoke()
    return interpreter.get_tensor(given["index"]), fed, given


@pytest.mark.parametrize("format", INTEGER_FORMATS)
def test_arrays_are_quantised_as_numpy_would(formats, format):
    # A third is far outside the calibrated range, on both sides.
    images = np.concatenate([formats.images, 50 * formats.images, -0.01 * formats.images])
    details = Interpreter(model_path=str(formats.files[format])).get_input_details()[0]
    scale, zero_point = details["quantization"]
    integers = np.round(images.astype(np.float64) / scale) + zero_point
    assert integers.min() < -128
    assert integers.max() > 127
    outputs, _, given = run_raw(formats.files[format], np.clip(integers, -128, 127).astype(np.int8))
    scale, zero_point = given["quantization"]
    expected = (outputs.astype(np.float64) - zero_point) * scale
    np.testing.assert_allclose(TFLiteModel(formats.files[format]).predict(images), expected, rtol=1e-6)


@pytest.mark.parametrize("format", CONVERTERS)
def test_every_format_carries_the_metadata(formats, format):
    found = read_metadata(formats.files[format])
    assert found == {**METADATA.describe(format), "labels": list(METADATA.labels)}


@pytest.mark.parametrize("kind", ["standardise", "scale_0_1", "caffe"])
def test_pixels_are_taken_as_they_are(make_classifier, make_pixels, settle, tmp_path, kind):
    preprocessing = Preprocessing(kind, *(((128.0,) * 3, (74.0,) * 3) if kind == "standardise" else ()))
    # The calibration's range isn't that of all pixels.
    pixels, calibration = np.arange(768, dtype=np.uint8).reshape(4, 8, 8, 3), make_pixels(64, seed=6)
    assert 0 < calibration.min() < calibration.max() < 255
    kept = calibration.copy()
    model = settle(make_classifier(seed=2), preprocessing.apply(tf.constant(calibration)))
    source = serving_model(model, preprocessing_layers=preprocessing.layers(), input_dtype="float32")

    path = export_tflite(source, tmp_path / "int8.tflite", format="int8", calibration=calibration)

    np.testing.assert_array_equal(calibration, kept)
    outputs, fed, given = run_raw(path, pixels)
    assert (fed["dtype"], fed["quantization"]) == (np.uint8, (1.0, 0))
    assert given["dtype"] == np.int8
    assert stored_types(path)[0] <= {"UINT8", "INT8", "INT32"}
    scale, zero_point = given["quantization"]
    loaded = TFLiteModel(path).predict(pixels)
    np.testing.assert_allclose(loaded, (outputs.astype(np.float64) - zero_point) * scale, rtol=1e-6)
    expected = model.predict(preprocessing.apply(tf.constant(calibration)), verbose=0)
    outputs = TFLiteModel(path).predict(calibration)
    assert np.abs(outputs - expected).max() <= 5 * scale
    assert (outputs.argmax(-1) == expected.argmax(-1)).mean() >= 0.9


IMAGES = np.zeros((4, 8, 8, 3), np.float32)


@pytest.mark.parametrize("format", INTEGER_FORMATS)
@pytest.mark.parametrize(
    ("calibration", "match"),
    [
        (None, "at least one training image.*Received: none"),
        (IMAGES[:0], r"at least one training image.*Received: shape \(0, 8, 8, 3\)"),
        (IMAGES[0], r"at least one training image.*Received: shape \(8, 8, 3\)"),
        (np.where(np.arange(3) == 1, np.nan, IMAGES).astype(np.float32), "float32 with NaN or infinity"),
        (np.where(np.arange(3) == 1, np.inf, IMAGES).astype(np.float32), "float32 with NaN or infinity"),
        (
            IMAGES.astype(np.int32),
            "finite float32, uint8 for pixels, or whole numbers for other inputs. Received: int32",
        ),
        (IMAGES.astype(np.int8), "Received: int8"),
    ],
)
def test_unusable_calibration_keeps_the_earlier_file(make_classifier, tmp_path, format, calibration, match):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"earlier")
    with pytest.raises(UserError, match=f"`calibration` must .*{match}"):
        export_tflite(make_classifier(), path, format=format, calibration=calibration)
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_whole_numbers_are_read_as_they_are(tmp_path):
    numbers = np.arange(60, dtype=np.int32).reshape(10, 6) % 5
    places = keras.Input((6,), dtype="int32")
    x = keras.layers.Flatten()(keras.layers.Embedding(5, 3, name="table")(places))
    model = keras.Model(places, keras.layers.Dense(2, name="scores")(x))
    outputs = TFLiteModel(export_tflite(model, tmp_path / "x", format="int8", calibration=numbers)).predict(numbers)
    np.testing.assert_allclose(outputs, model(numbers), atol=0.02)


def test_calibration_of_another_size_is_told(formats, make_classifier, tmp_path):
    with pytest.raises(UserError, match=r"`calibration` must have images of 8x8x3.*Received: shape \(4, 9, 8, 3\)"):
        export_tflite(make_classifier(), tmp_path / "x", format="int8", calibration=np.ones((4, 9, 8, 3), np.float32))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("metadata", [None, METADATA], ids=["bare", "described with preprocessing inside"])
def test_file_size_is_that_of_the_file(make_classifier, tmp_path, metadata):
    model = make_classifier(seed=2)
    layers = [] if metadata is None else [keras.layers.Rescaling([0.1, 0.2, 0.3], -1.0)]
    if metadata is None:
        path = export_tflite(model, tmp_path / "fp32.tflite")
    else:
        folder = write_frozen(serving_model(model, preprocessing_layers=layers), tmp_path / "frozen")
        path = export_tflite(folder, tmp_path / "fp32.tflite", metadata=metadata)
    assert file_size(model, preprocessing_layers=layers, metadata=metadata) == path.stat().st_size


@pytest.mark.parametrize("format", ["fp32", "int8"])
def test_frozen_weights_give_the_same_operations_and_outputs(make_classifier, test_set, tmp_path, format):
    model, (images, _) = make_classifier(activation="softmax", seed=3), test_set
    folders = [export_saved_model(model, tmp_path / "saved"), write_frozen(serving_model(model), tmp_path / "frozen")]
    files = [write_tflite(folder, f"{folder}.tflite", format=format, calibration=images) for folder in folders]
    operations = [[each["op_name"] for each in Interpreter(str(file))._get_ops_details()] for file in files]
    assert operations[0] == operations[1]
    outputs = [TFLiteModel(file).predict(images) for file in files]
    np.testing.assert_allclose(*outputs, atol=1e-6)
    assert all(Interpreter(str(file)).get_signature_list()["serving_default"]["inputs"] == ["images"] for file in files)


def test_variables_that_keras_does_not_know_are_kept(make_classifier, test_set, tmp_path):
    folder = export_saved_model(make_classifier(seed=4), tmp_path / "saved")
    layer = keras.layers.TFSMLayer(str(folder), call_endpoint="serving_default")
    images = keras.Input((8, 8, 3), name="images")
    model = keras.Model(images, layer(images)["output_0"])
    file = write_tflite(write_frozen(serving_model(model), tmp_path / "frozen"), tmp_path / "loaded.tflite")
    expected = LoadedSavedModel(folder).predict(test_set[0])
    np.testing.assert_allclose(TFLiteModel(file).predict(test_set[0]), expected, atol=1e-5)


@pytest.mark.parametrize("format", ["fp32", "int8"])
def test_a_useless_file_is_not_put_in_place(make_classifier, test_set, tmp_path, monkeypatch, format):
    """The file is converted from another network."""
    path, other = tmp_path / "model.tflite", export_saved_model(make_classifier(seed=5), tmp_path / "other")
    path.write_bytes(b"earlier")
    convert = CONVERTERS[format]
    monkeypatch.setattr(tflite, "CONVERTERS", {format: lambda folder, images: convert(other, images)})
    with pytest.raises(ExportError, match=f"The {format} file differs from its Keras model"):
        export_tflite(make_classifier(seed=1), path, format=format, calibration=test_set[0])
    assert path.read_bytes() == b"earlier"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["model.tflite", "other"]


def test_a_file_that_can_not_be_prepared_is_a_users_error(plain_file, monkeypatch):
    model = TFLiteModel(plain_file)

    def fail():
        raise RuntimeError("Node number 9 failed to prepare.")

    monkeypatch.setattr(
        model, "_interpreter", SimpleNamespace(resize_tensor_input=lambda *_: None, allocate_tensors=fail)
    )
    with pytest.raises(UserError, match=r"TFLite can't run .*net\.tflite: Node number 9 failed to prepare\."):
        model.predict(np.zeros([1, 8, 8, 3], np.float32))


@pytest.mark.parametrize("dtype", [np.float64, np.uint8])
def test_images_of_other_types_are_converted(plain_file, make_pixels, dtype):
    model = TFLiteModel(plain_file)
    pixels = make_pixels(3, seed=1)
    expected = model.predict(pixels.astype(np.float32))
    np.testing.assert_array_equal(model.predict(pixels.astype(dtype)), expected)


@pytest.mark.parametrize("shape", [(0, 8, 8, 3), (3, 4, 4, 3), (8, 8, 3)])
def test_images_of_another_shape_are_refused(plain_file, shape):
    with pytest.raises(UserError, match=r"`images` must be at least one image of 8x8x3, .* Received: shape"):
        TFLiteModel(plain_file).predict(np.zeros(shape, np.float32))


@pytest.mark.parametrize("name", ["u_net", "grouped", "multiplied"])
def test_students_with_transposed_and_grouped_convolutions(name, tmp_path):
    space = SearchSpace.from_model(make(name))
    student = randomize(build_student(space, Shape.smallest(space), logits=True))
    images = np.random.default_rng(0).normal(size=(3, 8, 8, 3)).astype(np.float32)
    outputs = TFLiteModel(export_tflite(student, tmp_path / "student.tflite")).predict(images)
    expected = np.array(student(images, training=False))
    np.testing.assert_allclose(outputs, expected, atol=1e-4 * np.abs(expected).max())


def test_a_network_of_any_size_needs_a_size(tmp_path):
    images = keras.Input((None, None, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(images))
    model = keras.Model(images, keras.layers.Dense(2)(x))
    with pytest.raises(UserError, match="`metadata` tells the size of the images"):
        export_tflite(model, tmp_path / "net.tflite")
    photos = np.random.default_rng(0).normal(size=(4, 6, 8, 3)).astype(np.float32)
    path = export_tflite(model, tmp_path / "net.tflite", calibration=photos)
    np.testing.assert_allclose(TFLiteModel(path).predict(photos), model(photos), atol=1e-4)

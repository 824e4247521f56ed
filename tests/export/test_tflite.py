import re
import subprocess
import sys
from types import MappingProxyType

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from export import tflite
from export.errors import ExportError
from export.saved_model import export_saved_model
from export.tflite import TFLiteModel, export_tflite
from tas_tf.errors import UserError


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_outputs_equal_keras_at_any_batch_size(make_classifier, test_set, tmp_path, activation):
    model, images = make_classifier(activation=activation), test_set[0]
    loaded = TFLiteModel(export_tflite(model, tmp_path / "model.tflite"))
    expected = model.predict(images, verbose=0)
    for batch_size in (1, 5, 16, 128):
        np.testing.assert_allclose(loaded.predict(images, batch_size=batch_size), expected, atol=1e-4)


def test_batch_normalisation_is_folded_and_batch_is_free(make_classifier, tmp_path, capsys):
    path = export_tflite(make_classifier(), tmp_path / "model.tflite")
    assert Interpreter(model_path=str(path)).get_input_details()[0]["shape_signature"].tolist() == [-1, 8, 8, 3]
    tf.lite.experimental.Analyzer.analyze(model_path=str(path))
    operations = re.findall(r"Op#\d+ (\w+)", capsys.readouterr().out)
    # ReLU and normalisation went into the convolutions: the first, the second, the sum, the head.
    assert operations == ["CONV_2D", "CONV_2D", "ADD", "MEAN", "FULLY_CONNECTED"]


def test_saved_model_folder_as_source_gives_the_same_function(make_classifier, test_set, tmp_path):
    model = make_classifier()
    folder = export_saved_model(model, tmp_path / "saved_model")
    from_folder = TFLiteModel(export_tflite(folder, tmp_path / "a.tflite"))
    from_model = TFLiteModel(export_tflite(model, tmp_path / "b.tflite"))
    np.testing.assert_array_equal(from_folder.predict(test_set[0]), from_model.predict(test_set[0]))


def test_threads_do_not_change_outputs(make_classifier, test_set, tmp_path):
    path = export_tflite(make_classifier(), tmp_path / "model.tflite")
    one, two = (TFLiteModel(path, num_threads=threads).predict(test_set[0]) for threads in (1, 2))
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


def test_artefacts_run_where_this_package_cannot_be_imported(make_classifier, test_set, tmp_path):
    model, images = make_classifier(activation="softmax"), test_set[0][:5]
    folder = export_saved_model(model, tmp_path / "saved_model")
    export_tflite(folder, tmp_path / "fp32.tflite")
    np.save(tmp_path / "images.npy", images)

    subprocess.run([sys.executable, "-c", FOREIGN, str(tmp_path)], check=True, cwd=tmp_path, timeout=120)

    outputs = np.load(tmp_path / "outputs.npz")
    for name in ("saved", "lite"):
        np.testing.assert_allclose(outputs[name], model(images), atol=1e-5)

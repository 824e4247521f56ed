import keras
import numpy as np
import pytest
import tensorflow as tf

from tas_tf.deploy.errors import ExportError
from tas_tf.deploy.saved_model import LoadedSavedModel, export_saved_model, serving_model
from tas_tf.errors import UserError


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_signature_takes_named_images_of_any_batch_size(make_classifier, test_set, tmp_path, activation):
    model = make_classifier(activation=activation)
    export_saved_model(model, tmp_path / "out")

    signature = tf.saved_model.load(str(tmp_path / "out")).signatures["serving_default"]
    assert signature.structured_input_signature[1]["images"].shape.as_list() == [None, 8, 8, 3]
    for batch in (1, 5):
        images = test_set[0][:batch]
        (outputs,) = signature(images=tf.constant(images)).values()
        np.testing.assert_allclose(outputs, model(images), atol=1e-5)


def test_fixed_batch_size_is_freed(tmp_path):
    images = keras.Input((4, 4, 1), batch_size=8)
    model = keras.Model(images, keras.layers.Dense(2)(keras.layers.Flatten()(images)))
    loaded = LoadedSavedModel(export_saved_model(model, tmp_path / "out"))
    assert loaded.predict(np.zeros((3, 4, 4, 1), np.float32)).shape == (3, 2)


def test_preprocessing_inside_equals_normalised_images(make_classifier, tmp_path):
    model = make_classifier()
    raw = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), dtype=np.uint8)
    mean, std = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.25, 0.3])
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Normalization(mean=mean, variance=std**2)]

    loaded = LoadedSavedModel(export_saved_model(model, tmp_path / "out", preprocessing_layers=layers))

    normalised = ((raw / 255 - mean) / std).astype(np.float32)
    np.testing.assert_allclose(loaded.predict(raw, batch_size=4), model.predict(normalised, verbose=0), atol=1e-4)


def test_mixed_precision_becomes_float32_and_leaves_the_model_alone(make_classifier, test_set):
    model, reference = make_classifier(policy="mixed_bfloat16"), make_classifier()
    served = serving_model(model)
    np.testing.assert_allclose(served(test_set[0]), reference(test_set[0]), atol=1e-5)
    assert model.layers[1].compute_dtype == "bfloat16"


def test_failure_keeps_the_earlier_folder_and_leaves_nothing_else(make_classifier, test_set, tmp_path, monkeypatch):
    model = make_classifier(seed=1)
    export_saved_model(model, tmp_path / "out")

    def fail_midway(self, path, **options):
        (tmp_path / path / "saved_model.pb").write_bytes(b"half")
        raise RuntimeError("disk full")

    monkeypatch.setattr(keras.Model, "export", fail_midway)
    with pytest.raises(ExportError, match="disk full"):
        export_saved_model(make_classifier(seed=2), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    np.testing.assert_allclose(LoadedSavedModel(tmp_path / "out").predict(test_set[0]), model(test_set[0]), atol=1e-5)


def test_refuses_what_can_not_be_served(make_classifier):
    numbers = keras.Sequential([keras.Input(()), keras.layers.Rescaling(2.0)])
    with pytest.raises(UserError, match=r"inputs \[\(None,\)\]"):
        serving_model(numbers)
    with pytest.raises(UserError, match="functional"):
        serving_model(keras.Sequential([keras.layers.Dense(2)]))
    with pytest.raises(UserError, match="preprocessing_layers"):
        serving_model(make_classifier(), preprocessing_layers=[np.sqrt])

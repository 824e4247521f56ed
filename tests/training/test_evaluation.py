import keras
import numpy as np
import pytest
import tensorflow as tf

from tas_tf.errors import UserError
from tas_tf.objectives.classification import Classification
from tas_tf.training.evaluation import evaluate, make_evaluator

THREE = Classification(3)


def reference(logits, labels):
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    loss = -log_probabilities[np.arange(len(labels)), labels].mean()
    hits = logits.argmax(axis=1) == labels
    balanced = np.mean([hits[labels == label].mean() for label in np.unique(labels)])
    by_class = [hits[labels == label].mean() if (labels == label).any() else None for label in range(3)]
    return {"accuracy": hits.mean(), "balanced_accuracy": balanced, "loss": loss}, by_class


def check(found, expected, rel):
    scores, by_class = expected
    assert found.pop("by_class") == pytest.approx(by_class)
    assert found == pytest.approx(scores, rel=rel)


def test_equals_numpy_with_a_smaller_last_batch(make_classifier, examples):
    images, labels = examples
    # Dropout must be off.
    model = make_classifier(dropout=0.9, normalise=True)
    dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(7)
    check(evaluate(model, dataset, THREE), reference(np.array(model(images)), labels), rel=1e-6)


def test_accepts_any_callable():
    logits = np.random.default_rng(0).normal(size=(5, 3)).astype("float32") * 30
    labels = np.array([0, 1, 2, 0, 1], np.uint8)
    dataset = tf.data.Dataset.from_tensor_slices((logits, labels)).batch(2)
    check(evaluate(lambda batch: batch, dataset, THREE), reference(logits, labels), rel=1e-6)


def test_evaluator_sees_new_weights_without_a_new_trace(examples):
    traces = []

    class Counting(keras.layers.Dense):
        def call(self, inputs, training=None):
            traces.append(training)
            return super().call(inputs)

    images, labels = examples
    flat = images.reshape(len(images), -1)
    layer = Counting(3)
    layer.build(flat.shape)
    dataset = tf.data.Dataset.from_tensor_slices((flat, labels)).batch(8)
    evaluator = make_evaluator(layer, THREE)
    evaluator(dataset)
    layer.kernel.assign(layer.kernel * 2)
    logits = flat @ np.array(layer.kernel)
    check(evaluator(dataset), reference(logits, labels), rel=1e-5)
    assert traces == [False]


def test_unusable_datasets_are_refused():
    dataset = tf.data.Dataset.from_tensors((tf.zeros((2, 3)), tf.zeros(2, tf.int64)))
    with pytest.raises(UserError, match="finite"):
        evaluate(lambda batch: batch, dataset.repeat(), THREE)
    with pytest.raises(UserError, match="empty"):
        evaluate(lambda batch: batch, dataset.take(0), THREE)


def test_several_models_are_several_functions(caplog):
    """TensorFlow warns of functions that are traced too often, which an evaluator of its own is not."""
    dataset = tf.data.Dataset.from_tensors((tf.zeros((2, 3)), tf.zeros(2, tf.int64)))
    with caplog.at_level("WARNING", logger="tensorflow"):
        for factor in range(8):
            evaluate(lambda batch, factor=factor: factor * batch, dataset, THREE)
    assert not [record for record in caplog.records if "retracing" in record.getMessage()]

"""Computes a classifier's exact accuracy and cross-entropy over a whole dataset."""

from collections.abc import Callable

import keras
import tensorflow as tf

from tas_tf.errors import UserError

Evaluator = Callable[[tf.data.Dataset], dict[str, float]]


def make_evaluator(model: Callable[[tf.Tensor], tf.Tensor]) -> Evaluator:
    """Returns a function that scores `model` and is traced only once, however often it is called.

    Args:
        model: Maps images to *logits*, `[batch, classes]`. Layers and models are called with
            `training=False`.

    Returns:
        A function that takes a finite dataset of `(images, labels)` batches, where labels are class numbers `[batch]`,
        and returns `{"accuracy", "loss"}`. Every example has the same weight, even in a smaller last batch. The
        function raises `UserError` if the dataset is empty or endless.
    """
    # TensorFlow would mistake nested functions of several models for one function that is retraced too often.
    sums = tf.function(_Sums(model), reduce_retracing=True)

    def evaluate_on(dataset: tf.data.Dataset) -> dict[str, float]:
        if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
            raise UserError("The dataset to evaluate on must be finite. Received one that repeats for ever.")
        total = tf.zeros([3], tf.float64)
        for images, labels in dataset:
            total += sums(images, labels)
        loss, hits, examples = total.numpy().tolist()
        if not examples:
            raise UserError("The dataset to evaluate on is empty. Check the split and its share.")
        return {"accuracy": hits / examples, "loss": loss / examples}

    return evaluate_on


class _Sums:
    """Sums losses, hits and examples of a batch, in float64 because large test sets lose digits in float32."""

    def __init__(self, model: Callable[[tf.Tensor], tf.Tensor]):
        self._model = model
        self._options = {"training": False} if isinstance(model, keras.layers.Layer) else {}

    def __call__(self, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        logits = tf.cast(self._model(images, **self._options), tf.float64)
        labels = tf.cast(tf.reshape(labels, [-1]), tf.int64)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        hits = tf.cast(tf.argmax(logits, axis=-1) == labels, tf.float64)
        return tf.stack([tf.reduce_sum(losses), tf.reduce_sum(hits), tf.cast(tf.size(labels), tf.float64)])


def evaluate(model: Callable[[tf.Tensor], tf.Tensor], dataset: tf.data.Dataset) -> dict[str, float]:
    """Scores `model` on `dataset` once; see `make_evaluator`."""
    return make_evaluator(model)(dataset)

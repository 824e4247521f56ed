"""Computes a network's exact scores and loss over a whole dataset."""

from collections.abc import Callable

import keras
import tensorflow as tf

from tas_tf.errors import UserError
from tas_tf.objectives.objective import Objective
from tas_tf.objectives.scoring import Scorer, tally_with_loss

Evaluator = Callable[[tf.data.Dataset], dict[str, float]]


def make_evaluator(
    model: Callable[[tf.Tensor], tf.Tensor],
    objective: Objective,
    see: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], None] | None = None,
) -> Evaluator:
    """Returns a function that scores `model` and is traced only once, however often it is called.

    Args:
        model: Maps images to *logits*, `[batch, ..., outputs]`. Layers and models are called with `training=False`.
        objective: What the outputs mean.
        see: Called with images, labels and logits of each batch.

    Returns:
        A function that takes a finite dataset of `(images, labels)` batches and returns the objective's scores, such as
        `accuracy`, and the `loss`. Every example has the same weight, even in a smaller last batch. The function raises
        `UserError` if the dataset is empty or endless.
    """
    # TensorFlow would mistake nested functions of several models for one function that is retraced too often.
    tally = tf.function(_Tally(model, objective), reduce_retracing=True)

    def evaluate_on(dataset: tf.data.Dataset) -> dict[str, float]:
        if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
            raise UserError("The dataset to evaluate on must be finite. Received one that repeats for ever.")
        scorer = Scorer(objective)
        for images, labels in dataset:
            found, logits = tally(images, labels)
            scorer.add(found, labels, logits)
            if see is not None:
                see(images, labels, logits)
        scores = scorer.result()
        if not scores:
            raise UserError("The dataset to evaluate on is empty. Check the split and its share.")
        return scores

    return evaluate_on


class _Tally:
    """Sums up the scores of a batch, in float64 because large test sets lose digits in float32."""

    def __init__(self, model: Callable[[tf.Tensor], tf.Tensor], objective: Objective) -> None:
        self._model, self._objective = model, objective
        self._options = {"training": False} if isinstance(model, keras.layers.Layer) else {}

    def __call__(self, images: tf.Tensor, labels: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        logits = tf.cast(self._model(images, **self._options), tf.float64)
        return tally_with_loss(self._objective, labels, logits), logits


def evaluate(
    model: Callable[[tf.Tensor], tf.Tensor],
    dataset: tf.data.Dataset,
    objective: Objective,
    see: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], None] | None = None,
) -> dict[str, float]:
    """Scores `model` on `dataset` once; see `make_evaluator`."""
    return make_evaluator(model, objective, see)(dataset)

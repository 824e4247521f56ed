"""Makes a model ready for the training loop."""

from __future__ import annotations

import keras
import tensorflow as tf

from tas_tf.training.checkpoint import list_optimizers
from tas_tf.training.strategy import check_batch_size


def prepare(model: keras.Model, strategy: tf.distribute.Strategy, batch_spec) -> None:
    """Checks that everything a step needs exists, and builds what Keras would build lazily.

    Lazily built optimizers and metrics fail with several replicas and are not restored from a checkpoint.

    Args:
        model: The model.
        strategy: Distribution strategy.
        batch_spec: Specification of a global batch.

    Raises:
        UserError: The batch can't be split evenly.
        ValueError: The model isn't ready.
    """
    check_batch_size(strategy, tf.nest.flatten(batch_spec)[0].shape[0])
    if strategy.num_replicas_in_sync > 1 and model.distribute_strategy is not strategy:
        raise ValueError(f"The model {model.name!r} must be created inside `strategy.scope()`.")
    if type(model).train_step is keras.Model.train_step:
        if not model.compiled:
            raise ValueError(f"The model {model.name!r} is not compiled.")
        with strategy.scope():
            _build_lazy_parts(model, _example_batch(batch_spec, strategy.num_replicas_in_sync))
    unbuilt = [part.name for part in (model, *list_optimizers(model)) if not part.built]
    if unbuilt:
        raise ValueError(
            f"Not built: {', '.join(unbuilt)}. A model with its own `train_step` must have been called on a "
            "batch, and have called `optimizer.build(variables)`, inside `strategy.scope()`."
        )


def _example_batch(batch_spec, replicas: int):
    def zeros(spec: tf.TensorSpec) -> tf.Tensor:
        batch, *rest = (size or 1 for size in spec.shape)
        return tf.zeros([max(1, batch // replicas), *rest], spec.dtype)

    return tf.nest.map_structure(zeros, batch_spec)


def _build_lazy_parts(model: keras.Model, batch) -> None:
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    if not model.built:
        model(x, training=False)
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    # This scope allows creating variables but keeps updates from reaching them.
    values = [(variable, tf.convert_to_tensor(variable.value)) for variable in model.variables]
    with keras.StatelessScope(state_mapping=values):
        predictions = model(x, training=False)
        model.compute_loss(x=x, y=y, y_pred=predictions, sample_weight=sample_weight, training=False)
        model.compute_metrics(x, y, predictions, sample_weight=sample_weight)

"""Dropout of which a resumed fine-tuning draws the same masks as an uninterrupted one."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras


class CountedDropout(tf_keras.layers.Layer):
    """Draws masks by a seed and the number of masks before, which is a variable and so is saved with the network.

    The generators of tf_keras's own layers keep their state to themselves.

    Args:
        rate: Share of the inputs that are dropped.
        noise_shape: Shape of the mask; `None` for that of the inputs, also for single axes.
        seed: Two integers, others for each layer.
    """

    def __init__(
        self, rate: float, noise_shape: tuple[int | None, ...] | None, seed: tuple[int, int], **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._rate, self._noise_shape, self._seed = rate, noise_shape, seed
        # Under a strategy, replicas count together.
        self._drawn = self.add_weight(
            name="drawn",
            shape=(),
            dtype=tf.int64,
            initializer="zeros",
            trainable=False,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Drops inputs in training, where the others are scaled up."""
        if not training:
            return tf.identity(inputs)
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        seed = tf.random.fold_in(tf.constant(self._seed, tf.int64), tf.identity(self._drawn))
        seed = tf.random.fold_in(seed, tf.cast(replica, tf.int64))
        self._drawn.assign_add(1)
        shape = None
        if self._noise_shape is not None:
            sizes = tf.unstack(tf.shape(inputs))
            shape = [size if given is None else given for size, given in zip(sizes, self._noise_shape, strict=True)]
        return tf.nn.experimental.stateless_dropout(inputs, self._rate, seed=seed, noise_shape=shape)


def with_counted_dropout(network: tf_keras.Model, seed: int) -> tf_keras.Model:
    """Copies a network, weights included, with counted dropout for any other.

    Args:
        network: Functional tf_keras model, quantised or not.
        seed: Seed of the masks.
    """
    number = 0

    def counted(layer: tf_keras.layers.Layer) -> tf_keras.layers.Layer:
        nonlocal number
        dropout = _dropout_of(layer)
        if dropout is None:
            return type(layer).from_config(layer.get_config())
        number += 1
        return CountedDropout(dropout.rate, _noise_shape(dropout), (seed, number), name=layer.name)

    with tfmot.quantization.keras.quantize_scope():
        copy = tf_keras.models.clone_model(network, clone_function=counted)
    take_weights(copy, network)
    return copy


def take_weights(network: tf_keras.Model, source: tf_keras.Model) -> None:
    """Gives a network the weights of another that differs in its dropout alone."""
    for layer in network.layers:
        if _dropout_of(layer) is None and not isinstance(layer, CountedDropout):
            layer.set_weights(source.get_layer(layer.name).get_weights())


def has_dropout(network: tf_keras.Model) -> bool:
    """Whether a network draws masks that can't be saved."""
    return any(_dropout_of(layer) is not None for layer in network.layers)


def _dropout_of(layer: tf_keras.layers.Layer) -> tf_keras.layers.Dropout | None:
    """The dropout that a layer is, or that the toolkit has wrapped: it rounds nothing there."""
    inner = layer.layer if isinstance(layer, tf_keras.layers.Wrapper) else layer
    return inner if isinstance(inner, tf_keras.layers.Dropout) else None


def _noise_shape(dropout: tf_keras.layers.Dropout) -> tuple[int | None, ...] | None:
    if "Spatial" in type(dropout).__name__:  # drops whole channels
        return (None, *[1] * (dropout.input_spec.ndim - 2), None)
    return None if dropout.noise_shape is None else tuple(dropout.noise_shape)

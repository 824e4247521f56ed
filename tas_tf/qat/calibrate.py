"""Sets the activation ranges of a fake-quantised network from images, before training."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tensorflow_model_optimization.quantization.keras as _toolkit
import tf_keras

from tas_tf.averaging import cumulative
from tas_tf.errors import UserError


def calibrate(network: tf_keras.Model, images: tf.data.Dataset) -> None:
    """Sets each activation's range to its mean over batches, and the input's range to the widest one seen.

    The toolkit starts each range at -6 to 6 and moves it by a thousandth a step, which would take thousands of steps.

    Args:
        network: Network made by `quantise`. Only its ranges are changed, in place.
        images: Finite dataset of batches `[batch, height, width, channels]`.

    Raises:
        UserError: `images` is empty.
    """
    share = tf.Variable(1.0, trainable=False)
    observer = tf_keras.models.clone_model(network, clone_function=lambda layer: _observing(layer, share))
    observer.set_weights(network.get_weights())
    batch = None
    for batch, momentum in cumulative(images):
        share.assign(1 - momentum)
        observer(batch, training=True)
    if batch is None:
        raise UserError("`images` must hold at least one batch to calibrate with. Received: none.")
    is_range = [variable.name.split(":")[0].endswith(("_min", "_max")) for variable in network.weights]
    pairs = zip(observer.get_weights(), network.get_weights(), is_range, strict=True)
    network.set_weights([found if moved else old for found, old, moved in pairs])


def _observing(layer: tf_keras.layers.Layer, share: tf.Variable) -> tf_keras.layers.Layer:
    """Copies a layer of the network; a quantised layer gets averaged ranges."""
    with _toolkit.quantize_scope():
        copy = type(layer).from_config(layer.get_config())
    if not isinstance(layer, _toolkit.QuantizeWrapper):
        return copy
    return type(layer)(copy.layer, _Observing(layer.quantize_config, share), name=layer.name)


class _Observing(_toolkit.QuantizeConfig):
    """Quantises a layer like another config, except that moving averages give every batch the same weight.

    Args:
        original: The other config.
        share: Weight of the current batch in the averages.
    """

    def __init__(self, original: _toolkit.QuantizeConfig, share: tf.Variable) -> None:
        self._original, self._share = original, share

    def _averaging(self, quantizer: _toolkit.quantizers.Quantizer) -> _toolkit.quantizers.Quantizer:
        moves = isinstance(quantizer, _toolkit.quantizers.MovingAverageQuantizer)
        return _MeanRange(self._share, **quantizer.get_config()) if moves else quantizer

    def get_weights_and_quantizers(self, layer: tf_keras.layers.Layer) -> list[tuple]:
        return self._original.get_weights_and_quantizers(layer)

    def get_activations_and_quantizers(self, layer: tf_keras.layers.Layer) -> list[tuple]:
        found = self._original.get_activations_and_quantizers(layer)
        return [(activation, self._averaging(quantizer)) for activation, quantizer in found]

    def set_quantize_weights(self, layer: tf_keras.layers.Layer, quantize_weights: list[tf.Tensor]) -> None:
        self._original.set_quantize_weights(layer, quantize_weights)

    def set_quantize_activations(self, layer: tf_keras.layers.Layer, quantize_activations: list) -> None:
        self._original.set_quantize_activations(layer, quantize_activations)

    def get_output_quantizers(self, layer: tf_keras.layers.Layer) -> list[_toolkit.quantizers.Quantizer]:
        return [self._averaging(quantizer) for quantizer in self._original.get_output_quantizers(layer)]

    def get_config(self) -> dict[str, Any]:
        return {"original": self._original, "share": self._share}


class _MeanRange(_toolkit.quantizers.MovingAverageQuantizer):
    """Moves a range towards that of the current batch by a share that the caller sets.

    Args:
        share: Weight of the current batch.
        options: Options of the toolkit's quantizer.
    """

    def __init__(self, share: tf.Variable, **options) -> None:
        super().__init__(**options)
        self._share = share

    def __call__(self, inputs: tf.Tensor, training: bool, weights: dict[str, tf.Variable], **kwargs) -> tf.Tensor:
        if training:
            # Integer kernels need each range to include 0.
            lowest, highest = tf.minimum(tf.reduce_min(inputs), 0.0), tf.maximum(tf.reduce_max(inputs), 0.0)
            for variable, found in ((weights["min_var"], lowest), (weights["max_var"], highest)):
                variable.assign_add(self._share * (found - variable))
        return super().__call__(inputs, False, weights, **kwargs)

"""Adds fake quantisation to a tf_keras network with TensorFlow's Model Optimization Toolkit."""

from __future__ import annotations

import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras

from tas_tf.qat.errors import QatError

#: Layers that batch normalisation is folded into.
_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Conv2DTranspose", "Dense")
_MOST_NAMED = 8
#: Prefix of quantised layers' names; tf_keras never generates such names itself.
_PREFIX = "quant_"


def quantise(twin: tf_keras.Model) -> tf_keras.Model:
    """Returns the network with weights and activations rounded to 8 bits, as integer kernels do.

    Args:
        twin: Functional tf_keras model, left unchanged.

    Raises:
        QatError: The toolkit doesn't support some layers; the message names them.
    """
    try:
        return _quantised(twin)
    except (RuntimeError, ValueError) as error:
        refused = refused_layers(twin)
        more = f" and {len(refused) - _MOST_NAMED} more" if len(refused) > _MOST_NAMED else ""
        listed = ", ".join(refused[:_MOST_NAMED]) or str(error).replace(_PREFIX, "").strip().split("\n")[0]
        raise QatError(f"Quantisation-aware training can't take the layers {listed}{more}.") from error


def _quantised(twin: tf_keras.Model) -> tf_keras.Model:
    """Renames the layers of a copy, and quantises the copy.

    The toolkit splits separable convolutions into two unnamed layers, for which tf_keras generates numbered names.
    Keras 3 numbers layers with its own counters, so the network's names could clash with these.
    """

    def renamed(layer: tf_keras.layers.Layer) -> tf_keras.layers.Layer:
        return type(layer).from_config({**layer.get_config(), "name": f"{_PREFIX}{layer.name}"})

    copy = tf_keras.models.clone_model(twin, clone_function=renamed)
    copy.set_weights(twin.get_weights())
    return tfmot.quantization.keras.quantize_model(copy, quantized_layer_name_prefix="")


def refused_layers(twin: tf_keras.Model) -> list[str]:
    """Returns the names and kinds of the layers that the toolkit can't quantise."""
    return [f"{layer.name} ({type(layer).__name__})" for layer in twin.layers if not _is_taken(layer)]


def _is_taken(layer: tf_keras.layers.Layer) -> bool:
    """Tries to quantise a single layer; batch normalisation is accepted if the layer before it absorbs it."""
    if isinstance(layer, tf_keras.layers.InputLayer):
        return True
    if isinstance(layer, tf_keras.layers.BatchNormalization):
        before = layer.inbound_nodes[0].inbound_layers  # tf_keras returns a single layer, not a list
        folds = type(before).__name__ in _CONVOLUTIONS and before.activation is tf_keras.activations.linear
        return folds and len(before.outbound_nodes) == 1
    inputs = tf.nest.map_structure(lambda tensor: tf_keras.Input(tensor.shape[1:]), layer.input)
    alone = tf_keras.Model(inputs, type(layer).from_config(layer.get_config())(inputs))
    try:
        _quantised(alone)
    except (RuntimeError, ValueError):
        return False
    return True

"""Adds fake quantisation to a tf_keras network with TensorFlow's Model Optimization Toolkit."""

from __future__ import annotations

import tensorflow as tf
import tensorflow_model_optimization.quantization.keras as _toolkit
import tf_keras

from tas_tf.qat.errors import QatError

_REGISTRY = _toolkit.default_8bit.Default8BitQuantizeRegistry()
#: Layers that batch normalisation is folded into.
_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Conv2DTranspose", "Dense")
#: Layers that the toolkit has no rules for, and of which only the outputs need rounding: one operation for each number.
#: The converter rounds their constants.
_OUTPUT_ONLY = frozenset(
    [
        *("Multiply", "Subtract", "Average", "Maximum", "Minimum"),
        *("Rescaling", "BatchNormalization", "PReLU"),
    ]
)
_MOST_NAMED = 8
#: Prefix of quantised layers' names; tf_keras never generates such names itself.
_PREFIX = "quant_"


def quantise(twin: tf_keras.Model) -> tf_keras.Model:
    """Returns the network with weights and activations rounded to 8 bits, as integer kernels do.

    Args:
        twin: Functional tf_keras model, left unchanged.

    Raises:
        QatError: Some layers can't be quantised; the message names them.
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
    annotated = tf_keras.models.clone_model(copy, clone_function=_annotated)
    annotated.set_weights(copy.get_weights())
    with _toolkit.quantize_scope():
        return _toolkit.quantize_apply(annotated, quantized_layer_name_prefix="")


def _annotated(layer: tf_keras.layers.Layer) -> tf_keras.layers.Layer:
    """Marks a layer for the toolkit, with our own rule if it has none."""
    config = None
    if type(layer).__name__ in _OUTPUT_ONLY and not _is_known(layer):
        config = _rule_of(tf_keras.layers.Add())
    elif isinstance(layer, tf_keras.layers.AveragePooling2D) and _is_concatenated(layer):
        # Means lie within the range of what is averaged. A range of their own and one of the concatenation would be
        # one too many for the converter.
        config = _rule_of(tf_keras.layers.MaxPooling2D())
    return _toolkit.quantize_annotate_layer(type(layer).from_config(layer.get_config()), quantize_config=config)


def _rule_of(layer: tf_keras.layers.Layer) -> _toolkit.QuantizeConfig:
    """The toolkit's rule for a layer: sums have their outputs rounded, and maxima nothing."""
    return _REGISTRY.get_quantize_config(layer)


def _is_concatenated(layer: tf_keras.layers.Layer) -> bool:
    return any(isinstance(node.outbound_layer, tf_keras.layers.Concatenate) for node in layer.outbound_nodes)


def _is_known(layer: tf_keras.layers.Layer) -> bool:
    """Whether the toolkit has a rule for a layer: batch normalisation is folded into a convolution before it."""
    if isinstance(layer, tf_keras.layers.BatchNormalization):
        before = layer.inbound_nodes[0].inbound_layers  # tf_keras returns a single layer, not a list
        folds = type(before).__name__ in _CONVOLUTIONS and before.activation is tf_keras.activations.linear
        return folds and len(before.outbound_nodes) == 1
    return _REGISTRY.supports(layer)


def refused_layers(twin: tf_keras.Model) -> list[str]:
    """Returns the names and kinds of the layers that can't be quantised."""
    return [f"{layer.name} ({type(layer).__name__})" for layer in twin.layers if not _is_taken(layer)]


def _is_taken(layer: tf_keras.layers.Layer) -> bool:
    """Tries to quantise a single layer."""
    if isinstance(layer, tf_keras.layers.InputLayer) or type(layer).__name__ in _OUTPUT_ONLY:
        return True
    inputs = tf.nest.map_structure(lambda tensor: tf_keras.Input(tensor.shape[1:]), layer.input)
    alone = tf_keras.Model(inputs, type(layer).from_config(layer.get_config())(inputs))
    try:
        _quantised(alone)
    except (RuntimeError, ValueError):
        return False
    return True

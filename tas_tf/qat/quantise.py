"""Puts fake quantisation into a tf_keras network, by TensorFlow's Model Optimization Toolkit."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras
from tensorflow_model_optimization.python.core.quantization.keras import quant_ops

from tas_tf.errors import UserError

#: What batch normalisation is folded into.
_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Conv2DTranspose", "Dense")
_MOST_NAMED = 8


class QatError(UserError):
    """A network that can't be trained quantisation-aware."""


def quantise(twin: tf_keras.Model) -> tf_keras.Model:
    """Returns the network with weights and activations rounded to 8 bits as integer kernels round them.

    Args:
        twin: Functional tf_keras model; stays as it is.

    Raises:
        QatError: The toolkit can't take some layers; the message names them.
    """
    _pass_over_names(twin)
    try:
        return tfmot.quantization.keras.quantize_model(twin)
    except (RuntimeError, ValueError) as error:
        refused = refused_layers(twin)
        more = f" and {len(refused) - _MOST_NAMED} more" if len(refused) > _MOST_NAMED else ""
        listed = ", ".join(refused[:_MOST_NAMED]) or str(error).strip().split("\n")[0]
        raise QatError(f"Quantisation-aware training can't take the layers {listed}{more}.") from error


def _pass_over_names(twin: tf_keras.Model) -> None:
    """Makes tf_keras number new layers beyond those of a network.

    The toolkit splits separable convolutions into two layers that it leaves unnamed. Were they called like others of
    the network, which Keras 3 has numbered by counters of its own, the toolkit would fail, or never end.
    """
    if not any(isinstance(layer, tf_keras.layers.SeparableConv2D) for layer in twin.layers):
        return
    names = [layer.name for layer in twin.layers]
    for kind, prefix in ((tf_keras.layers.Conv2D, "conv2d"), (tf_keras.layers.DepthwiseConv2D, "depthwise_conv2d")):
        highest = max((_number(name, prefix) for name in names), default=-1)
        while _number((kind(1, 1) if prefix == "conv2d" else kind(1)).name, prefix) < highest:
            continue


def _number(name: str, prefix: str) -> int:
    """What counts a name: 0 for the prefix alone, -1 for other names."""
    found = re.fullmatch(rf"{prefix}(?:_(\d+))?", name)
    return -1 if found is None else int(found[1] or 0)


def refused_layers(twin: tf_keras.Model) -> list[str]:
    """Names, with their kinds, the layers that the toolkit can't quantise."""
    return [f"{layer.name} ({type(layer).__name__})" for layer in twin.layers if not _is_taken(layer)]


def _is_taken(layer: tf_keras.layers.Layer) -> bool:
    """Tries a layer alone; batch normalisation is taken together with what it is folded into."""
    if isinstance(layer, tf_keras.layers.InputLayer):
        return True
    if isinstance(layer, tf_keras.layers.BatchNormalization):
        before = layer.inbound_nodes[0].inbound_layers  # one layer: tf_keras makes no list of it
        folds = type(before).__name__ in _CONVOLUTIONS and before.activation is tf_keras.activations.linear
        return folds and len(before.outbound_nodes) == 1
    inputs = tf.nest.map_structure(lambda tensor: tf_keras.Input(tensor.shape[1:]), layer.input)
    alone = tf_keras.Model(inputs, type(layer).from_config(layer.get_config())(inputs))
    try:
        tfmot.quantization.keras.quantize_model(alone)
    except (RuntimeError, ValueError):
        return False
    return True


def calibrate(network: tf_keras.Model, images: tf.data.Dataset) -> None:
    """Sets the range of every activation to its mean over batches.

    The toolkit starts each range at -6 to 6 and moves it by a thousandth a step: it would take thousands of steps.

    Args:
        network: Made by `quantise`; changed in place.
        images: A finite dataset of batches `[batch, height, width, channels]`.
    """
    before = network.get_weights()
    is_range = [variable.name.split(":")[0].endswith(("_min", "_max")) for variable in network.weights]
    for number, batch in enumerate(images):
        with _moving_averages(decay=number / (number + 1)):
            network(batch, training=True)
    # Training mode has moved the statistics of batch normalisation too.
    pairs = zip(network.get_weights(), before, is_range, strict=True)
    network.set_weights([found if moved else old for found, old, moved in pairs])


@contextlib.contextmanager
def _moving_averages(*, decay: float) -> Iterator[None]:
    """Replaces the decay of ranges, a constant inside the toolkit that nothing else can set."""
    original = quant_ops.MovingAvgQuantize

    def replaced(*args, **options):
        return original(*args, **{**options, "ema_decay": decay})

    quant_ops.MovingAvgQuantize = replaced
    try:
        yield
    finally:
        quant_ops.MovingAvgQuantize = original

"""Saves a fake-quantised network as a SavedModel, and loads it as a Keras 3 model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import keras
import tensorflow as tf

from tas_tf.files import atomic_folder

if TYPE_CHECKING:
    import tf_keras

_INPUT, _OUTPUT, _SIGNATURE = "images", "scores", "serving_default"


def write_quantised(path: str | Path, network: tf_keras.Model, *, activation: str) -> None:
    """Writes a network for inference; an existing `path` is replaced only once the new network is complete.

    Args:
        path: Folder to write.
        network: Network ending in logits.
        activation: Name of the activation that the saved network ends in.

    Raises:
        OSError: The folder can't be written.
    """

    def infer(images: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = network(images, training=False)
        return {_OUTPUT: activate(logits)}

    activate = {"softmax": tf.nn.softmax, "sigmoid": tf.sigmoid}.get(activation, tf.identity)
    module = tf.Module()
    # Track only the variables: to save layers as layers, tf_keras would trace each one again.
    module.held = list(network.variables)
    spec = tf.TensorSpec([None, *network.input_shape[1:]], tf.float32, name=_INPUT)
    signature = tf.function(infer, input_signature=[spec])
    with atomic_folder(path) as partial:
        tf.saved_model.save(module, str(partial), signatures={_SIGNATURE: signature})


def load_quantised(path: str | Path, image_shape: tuple[int, int, int]) -> keras.Model:
    """Wraps a network from `write_quantised` in a Keras 3 model, which can be run or exported.

    Args:
        path: Folder of the network.
        image_shape: Height, width and channels.

    Returns:
        A model from float32 images `[batch, height, width, channels]` to `[batch, ...]`.
    """
    layer = keras.layers.TFSMLayer(str(path), call_endpoint=_SIGNATURE)
    images = keras.Input(image_shape, name=_INPUT)
    return keras.Model(images, layer(images)[_OUTPUT], name="quantised")

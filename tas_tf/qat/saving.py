"""Keeps a fake-quantised network as a SavedModel, and gives it back as a Keras 3 model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import keras
import tensorflow as tf

from tas_tf.files import atomic_folder

if TYPE_CHECKING:
    import tf_keras

_INPUT, _OUTPUT, _SIGNATURE = "images", "scores", "serving_default"


def write_quantised(path: str | Path, network: tf_keras.Model, *, softmax: bool) -> None:
    """Writes a network for inference; what stood at `path` is replaced only once the new one is complete.

    Args:
        path: Folder to write.
        network: Ends in logits.
        softmax: Whether the file shall end in probabilities.

    Raises:
        OSError: It can't be written there.
    """

    def infer(images: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = network(images, training=False)
        return {_OUTPUT: tf.nn.softmax(logits) if softmax else logits}

    module = tf.Module()
    # The variables alone: tf_keras would trace each layer once more to keep it as a layer.
    module.held = list(network.variables)
    spec = tf.TensorSpec([None, *network.input_shape[1:]], tf.float32, name=_INPUT)
    signature = tf.function(infer, input_signature=[spec])
    with atomic_folder(path) as partial:
        tf.saved_model.save(module, str(partial), signatures={_SIGNATURE: signature})


def load_quantised(path: str | Path, image_shape: tuple[int, int, int]) -> keras.Model:
    """Wraps what `write_quantised` wrote into a Keras 3 model, to be run or exported.

    Args:
        path: The folder.
        image_shape: Height, width and channels.

    Returns:
        A model from float32 images `[batch, height, width, channels]` to `[batch, classes]`.
    """
    layer = keras.layers.TFSMLayer(str(path), call_endpoint=_SIGNATURE)
    images = keras.Input(image_shape, name=_INPUT)
    return keras.Model(images, layer(images)[_OUTPUT], name="quantised")

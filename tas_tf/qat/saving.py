"""Saves a fake-quantised network as a SavedModel, and loads it as a Keras 3 model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import tensorflow as tf

from tas_tf import workers
from tas_tf.files import atomic_folder

if TYPE_CHECKING:
    import tf_keras

_INPUT, _OUTPUT, _SIGNATURE = "images", "scores", "serving_default"


@dataclass(frozen=True)
class Head:
    """One output of a network.

    Attributes:
        shape: Shape of an image's logits.
        activation: Name of the activation that it ends in.
    """

    shape: tuple[int, ...]
    activation: str

    def activated(self, logits: tf.Tensor) -> tf.Tensor:
        """The output, given its logits."""
        return {"softmax": tf.nn.softmax, "sigmoid": tf.sigmoid}.get(self.activation, tf.identity)(logits)


def write_quantised(path: str | Path, network: tf_keras.Model, *, heads: Mapping[str, Head]) -> None:
    """Writes a network for inference; an existing `path` is replaced only once the new network is complete.

    All workers take part, but the chief alone writes.

    Args:
        path: Folder to write.
        network: Network ending in logits.
        heads: The outputs of the saved network by name. The logits of several ones are taken before they are packed, so
            that each has a range of its own.

    Raises:
        OSError: The folder can't be written.
    """

    def infer(images: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = keras.tree.flatten(apart(images, training=False))
        names = heads if len(heads) > 1 else [_OUTPUT]
        return {name: head.activated(one) for name, head, one in zip(names, heads.values(), logits, strict=True)}

    apart = network if len(heads) == 1 else _before_packing(network, list(heads.values()))
    module = tf.Module()
    # Track only the variables: to save layers as layers, tf_keras would trace each one again.
    module.held = list(network.variables)
    spec = tf.TensorSpec([None, *network.input_shape[1:]], tf.float32, name=_INPUT)
    signature = tf.function(infer, input_signature=[spec])
    with atomic_folder(path) if workers.is_chief() else workers.nowhere() as folder:
        tf.saved_model.save(module, str(folder), signatures={_SIGNATURE: signature})


def load_quantised(path: str | Path, image_shape: tuple[int, int, int]) -> keras.Model:
    """Wraps a network from `write_quantised` in a Keras 3 model, which can be run or exported.

    Args:
        path: Folder of the network.
        image_shape: Height, width and channels.

    Returns:
        A model from float32 images `[batch, height, width, channels]` to `[batch, ...]`, for several outputs by name.
    """
    layer = keras.layers.TFSMLayer(str(path), call_endpoint=_SIGNATURE)
    images = keras.Input(image_shape, name=_INPUT)
    outputs = dict(layer(images))
    return keras.Model(images, outputs[_OUTPUT] if len(outputs) == 1 else outputs, name="quantised")


def _before_packing(network: tf_keras.Model, heads: Sequence[Head]) -> tf_keras.Model:
    """The same network with the tensors as outputs that its last layer packs, each in its own shape."""
    import tf_keras

    packed = network.layers[-1].input
    apart = [tf_keras.layers.Reshape(head.shape)(one) for head, one in zip(heads, packed, strict=True)]
    return tf_keras.Model(network.input, apart)

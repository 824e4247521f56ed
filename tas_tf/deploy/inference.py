"""The network that files compute, without layers that act in training only."""

from __future__ import annotations

import keras

from tas_tf.deploy.errors import ExportError
from tas_tf.graph.kinds import is_augmentation
from tas_tf.graph.layers import every_layer, plain_model


class _Passed(keras.layers.Layer):
    """Does what an augmentation layer does in inference: casts images to floats."""

    def call(self, images, training=None, mask=None):
        return keras.ops.cast(images, self.compute_dtype)


def inference_model(model: keras.Model) -> keras.Model:
    """Returns the network without its augmentation layers; the other layers are shared.

    Augmentation layers do nothing in inference, but leave random operations in the graph, which TFLite doesn't have.

    Args:
        model: Functional or Sequential model; it isn't changed.

    Raises:
        ExportError: If the network can't be built without its augmentation layers.
    """
    if not any(map(_is_augmentation, every_layer(model))):
        return model

    def replace(layer):
        return _Passed(dtype=layer.dtype_policy, name=layer.name) if _is_augmentation(layer) else layer

    try:
        return keras.models.clone_model(plain_model(model), clone_function=replace, recursive=True)
    except (TypeError, ValueError) as error:
        names = ", ".join(layer.name for layer in every_layer(model) if _is_augmentation(layer))
        reason = str(error).strip().split("\n")[0]
        raise ExportError(f"The model can't be built without its augmentation layers, {names}: {reason}") from error


def _is_augmentation(layer: keras.Layer) -> bool:
    kind = type(layer)
    config = layer.get_config() if kind.__name__ == "Pipeline" else {}
    return isinstance(layer, keras.Layer) and is_augmentation(kind.__module__, kind.__name__, config)

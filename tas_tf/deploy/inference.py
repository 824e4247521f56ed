"""The network that files compute: without layers that act in training only, and with layers that convert well."""

from __future__ import annotations

import keras

from tas_tf.deploy.errors import ExportError
from tas_tf.graph.kinds import is_augmentation
from tas_tf.graph.layers import every_layer, plain_model


class _Passed(keras.layers.Layer):
    """Does what an augmentation layer does in inference: casts images to floats."""

    def call(self, images, training=None, mask=None):
        return keras.ops.cast(images, self.compute_dtype)


class _Enlarged(keras.layers.Layer):
    """Repeats positions, as UpSampling2D does, by an operation that keeps the size of the images known.

    Keras repeats rows and columns one after the other, which makes sizes unknown to TFLite's converter as long as the
    batch is. After two such layers it has no convolution.
    """

    def __init__(self, size: tuple[int, int], **kwargs) -> None:
        super().__init__(**kwargs)
        self._size = size

    def compute_output_shape(self, shape):
        sides = (side and side * factor for side, factor in zip(shape[1:3], self._size, strict=True))
        return (shape[0], *sides, shape[3])

    def call(self, images):
        sides = [side * factor for side, factor in zip(keras.ops.shape(images)[1:3], self._size, strict=True)]
        return keras.ops.image.resize(images, sides, interpolation="nearest", data_format="channels_last")


def inference_model(model: keras.Model) -> keras.Model:
    """Returns the network without its augmentation layers; most other layers are shared.

    Augmentation layers do nothing in inference, but leave random operations in the graph, which TFLite doesn't have.
    UpSampling2D is replaced by a layer that computes the same.

    Args:
        model: Functional or Sequential model; it isn't changed.

    Raises:
        ExportError: If the network can't be built without its augmentation layers.
    """
    if not any(map(_is_replaced, every_layer(model))):
        return model

    def replace(layer):
        options = {"dtype": layer.dtype_policy, "name": layer.name} if _is_replaced(layer) else {}
        if _is_augmentation(layer):
            return _Passed(**options)
        return _Enlarged(layer.size, **options) if _repeats_positions(layer) else layer

    try:
        return keras.models.clone_model(plain_model(model), clone_function=replace, recursive=True)
    except (TypeError, ValueError) as error:
        names = ", ".join(layer.name for layer in every_layer(model) if _is_augmentation(layer))
        reason = str(error).strip().split("\n")[0]
        if not names:  # the network can do without the replacement
            return model
        raise ExportError(f"The model can't be built without its augmentation layers, {names}: {reason}") from error


def _is_replaced(layer: keras.Layer) -> bool:
    return _is_augmentation(layer) or _repeats_positions(layer)


def _repeats_positions(layer: keras.Layer) -> bool:
    """Whether a layer is Keras's UpSampling2D without interpolation."""
    if type(layer) is not keras.layers.UpSampling2D:
        return False
    return layer.interpolation == "nearest" and layer.data_format == "channels_last"


def _is_augmentation(layer: keras.Layer) -> bool:
    kind = type(layer)
    config = layer.get_config() if kind.__name__ == "Pipeline" else {}
    return isinstance(layer, keras.Layer) and is_augmentation(kind.__module__, kind.__name__, config)

"""A network as files compute it: layers that act in training alone are left out."""

from __future__ import annotations

from collections.abc import Iterator

import keras

from tas_tf.deploy.errors import ExportError
from tas_tf.graph.kinds import is_augmentation


class _Passed(keras.layers.Layer):
    """What an augmentation layer does in inference: images become floats, nothing else."""

    def call(self, images, training=None, mask=None):
        return keras.ops.cast(images, self.compute_dtype)


def inference_model(model: keras.Model) -> keras.Model:
    """Returns the network without augmentation, over the same layers otherwise.

    Augmentation layers do nothing in inference, but leave random operations in the graph, which TFLite doesn't have.

    Args:
        model: Functional or Sequential; stays as it is.

    Raises:
        ExportError: Without its augmentation the network doesn't fit together.
    """
    if not any(map(_is_augmentation, every_layer(model))):
        return model

    def replace(layer):
        return _Passed(dtype=layer.dtype_policy, name=layer.name) if _is_augmentation(layer) else layer

    # Functional and without its losses and metrics, which a compiled model would hand on.
    plain = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    try:
        return keras.models.clone_model(plain, clone_function=replace, recursive=True)
    except (TypeError, ValueError) as error:
        names = ", ".join(layer.name for layer in every_layer(model) if _is_augmentation(layer))
        reason = str(error).strip().split("\n")[0]
        raise ExportError(f"The model can't be built without its augmentation layers, {names}: {reason}") from error


def every_layer(model: keras.Model) -> Iterator[keras.Layer]:
    """Gives the layers of a model, those of nested models in place of these."""
    for layer in model.layers:
        if isinstance(layer, keras.Model) and hasattr(layer, "layers"):
            yield from every_layer(layer)
        else:
            yield layer


def _is_augmentation(layer: keras.Layer) -> bool:
    kind = type(layer)
    config = layer.get_config() if kind.__name__ == "Pipeline" else {}
    return isinstance(layer, keras.Layer) and is_augmentation(kind.__module__, kind.__name__, config)

"""Writing a Keras classifier as a TensorFlow SavedModel, and running one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tas_tf.deploy.agreement import check_agreement, probe_images
from tas_tf.deploy.errors import ExportError, raise_if_full
from tas_tf.deploy.inference import inference_model
from tas_tf.deploy.metadata import Metadata, write_extra
from tas_tf.errors import UserError
from tas_tf.files import atomic_folder

INPUT_NAME = "images"
SIGNATURE = "serving_default"


def serving_model(
    model: keras.Model,
    *,
    preprocessing_layers: Sequence[keras.layers.Layer] = (),
    input_dtype: str | None = None,
) -> keras.Model:
    """Wraps a classifier the way it is deployed: free batch size, input named `images`, float32 inside.

    Every layer is in inference mode, and augmentation layers are left out.

    Args:
        model: Classifier, `[batch, height, width, channels]` to `[batch, classes]`; logits or softmax.
        preprocessing_layers: Layers put before it, in order, e.g. `Rescaling` and `Normalization`.
        input_dtype: Type of the images fed. Default: `uint8` with preprocessing layers, else the model's own.

    Returns:
        A Keras model over the same weights; over a copy of them if `model` computes in mixed precision.

    Raises:
        UserError: If the model isn't such a classifier, or a preprocessing step isn't a Keras layer.
    """
    _check_classifier(model)
    for layer in preprocessing_layers:
        if not isinstance(layer, keras.layers.Layer):
            raise UserError(f"`preprocessing_layers` must hold Keras layers. Received: {layer!r}.")
    dtype = input_dtype or ("uint8" if preprocessing_layers else model.inputs[0].dtype)
    images = keras.Input(model.input_shape[1:], dtype=dtype, name=INPUT_NAME)
    x = images
    # Said for each part: layers that process images let `training=True` out to all layers behind them otherwise.
    for layer in preprocessing_layers:
        x = layer(x, training=False)
    return keras.Model(images, inference_model(_as_float32(model))(x, training=False), name="serving")


def export_saved_model(
    model: keras.Model,
    path: str | Path,
    *,
    preprocessing_layers: Sequence[keras.layers.Layer] = (),
    metadata: Metadata | None = None,
) -> Path:
    """Writes a classifier as a SavedModel whose serving signature takes `images` of any batch size.

    The folder loads through `tf.saved_model.load` alone. It is run on a few images first: what stood at `path` is
    replaced only once the new one computes what the Keras model computes.

    Args:
        model: See `serving_model`.
        path: Folder to write.
        preprocessing_layers: Layers put inside the graph; the signature then takes raw `uint8` images.
        metadata: What the folder shall carry.

    Returns:
        The folder.

    Raises:
        UserError: If the model isn't a classifier of images.
        ExportError: If Keras can't export it, or the folder computes something else.
        OSError: If the disk is full.

    Example:
        ```python
        tas_tf.export_saved_model(result.student, "saved_model")
        ```
    """
    served = serving_model(model, preprocessing_layers=preprocessing_layers)

    def check(folder: Path) -> None:
        predict, expect = LoadedSavedModel(folder).predict, partial(served, training=False)
        images = probe_images(served.input_shape, served.inputs[0].dtype)
        check_agreement(predict, expect, images, format="saved_model", name="The SavedModel")

    return write_saved_model(served, path, metadata=metadata, check=check)


def write_saved_model(
    model: keras.Model,
    path: str | Path,
    *,
    metadata: Metadata | None = None,
    check: Callable[[Path], None] | None = None,
) -> Path:
    """Writes what `serving_model` returned, as `export_saved_model` does.

    Args:
        model: What is written.
        path: Folder to write.
        metadata: What the folder shall carry.
        check: Called with the folder before it is put in place; raises to keep the earlier one.
    """
    path = Path(path)
    with atomic_folder(path) as scratch:
        try:
            model.export(str(scratch), verbose=False)
        except Exception as error:  # the layers of a model may raise anything while they are traced
            raise_if_full(error, path)
            raise ExportError(f"The model can't be written as a SavedModel: {error}") from error
        if metadata is not None:
            write_extra(scratch, metadata.files("saved_model"))
        if check is not None:
            check(scratch)
    return path


class LoadedSavedModel:
    """A SavedModel's serving signature, run on NumPy arrays.

    Args:
        path: Folder of the SavedModel.
    """

    def __init__(self, path: str | Path):
        # The signature alone doesn't keep the variables alive.
        self._loaded = tf.saved_model.load(str(path))
        self._signature = self._loaded.signatures[SIGNATURE]
        (self._output,) = self._signature.structured_outputs
        ((self._input, spec),) = self._signature.structured_input_signature[1].items()
        #: Shape `[batch, height, width, channels]`, and type, of the images that it takes.
        self.input_spec = tuple(spec.shape), spec.dtype.name

    def predict(self, images: np.ndarray, *, batch_size: int = 128) -> np.ndarray:
        """Runs images `[n, height, width, channels]` in batches; returns outputs `[n, classes]`."""
        starts = range(0, len(images), batch_size)
        return np.concatenate([self._run(tf.constant(images[i : i + batch_size])) for i in starts])

    def bind(self, images: np.ndarray) -> Callable[[], None]:
        """Returns a call that runs `images` once, for timing: from a tensor to an array of outputs."""
        tensor = tf.constant(images)

        def run() -> None:
            self._run(tensor)

        return run

    def _run(self, images: tf.Tensor) -> np.ndarray:
        return self._signature(**{self._input: images})[self._output].numpy()


def _check_classifier(model: keras.Model) -> None:
    """Refuses a model that doesn't map one batch of images to one row of classes each."""
    if not isinstance(model, keras.Model) or getattr(model, "inputs", None) is None:
        raise UserError(f"`model` must be a functional or Sequential Keras model that is built. Received: {model!r}.")
    inputs = [tuple(tensor.shape) for tensor in model.inputs]
    outputs = [tuple(tensor.shape) for tensor in model.outputs]
    if len(inputs) != 1 or len(inputs[0]) != 4 or len(outputs) != 1 or len(outputs[0]) != 2:
        raise UserError(
            "`model` must have one input [batch, height, width, channels] and one output [batch, classes]. "
            f"Received: inputs {inputs}, outputs {outputs}."
        )


def _as_float32(model: keras.Model) -> keras.Model:
    """Returns the model computing in float32: LiteRT has no kernels for the half types of training."""
    config, mixed = _without_mixed_precision(model.get_config())
    if not mixed:
        return model
    copy = type(model).from_config(config)
    copy.set_weights(model.get_weights())
    return copy


def _without_mixed_precision(config: object) -> tuple[object, bool]:
    """Returns a config with float32 for every mixed policy, and whether there was one."""
    if isinstance(config, list | tuple):
        items = [_without_mixed_precision(item) for item in config]
        return type(config)(item for item, _ in items), any(mixed for _, mixed in items)
    if not isinstance(config, dict):
        return config, False
    if config.get("class_name") == "DTypePolicy" and config["config"]["name"].startswith("mixed_"):
        return "float32", True
    entries = {key: _without_mixed_precision(value) for key, value in config.items()}
    return {key: value for key, (value, _) in entries.items()}, any(mixed for _, mixed in entries.values())

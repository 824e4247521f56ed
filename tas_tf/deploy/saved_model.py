"""Writes a Keras network as a TensorFlow SavedModel, and runs SavedModels."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
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
from tas_tf.graph.image_size import with_image_size
from tas_tf.graph.layers import copy_model

INPUT_NAME = "images"
SIGNATURE = "serving_default"
_OUTPUT = "output_0"  # as Keras names it


def serving_model(
    model: keras.Model,
    *,
    preprocessing_layers: Sequence[keras.layers.Layer] = (),
    input_dtype: str | None = None,
) -> keras.Model:
    """Wraps a network for deployment: free batch size, input named `images`, float32 inside.

    All layers are in inference mode, and augmentation layers are left out.

    Args:
        model: Network from `[batch, height, width, channels]` to `[batch, ...]`.
        preprocessing_layers: Layers put before the model, in order, e.g. `Rescaling` and `Normalization`.
        input_dtype: Type of the input images. Default: `uint8` with preprocessing layers, else the model's input type.

    Returns:
        A Keras model that shares the weights; it has a copy of them if `model` computes in mixed precision.

    Raises:
        UserError: If the model isn't such a network, or a preprocessing layer isn't a Keras layer.
    """
    _check_images_to_outputs(model)
    for layer in preprocessing_layers:
        if not isinstance(layer, keras.layers.Layer):
            raise UserError(f"`preprocessing_layers` must hold Keras layers. Received: {layer!r}.")
    dtype = input_dtype or ("uint8" if preprocessing_layers else model.inputs[0].dtype)
    images = keras.Input(model.input_shape[1:], dtype=dtype, name=INPUT_NAME)
    x = images
    # Passed to each part: otherwise layers that process images pass `training=True` to all layers behind them.
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
    """Writes a network as a SavedModel whose serving signature takes `images` of any batch size.

    The folder loads with `tf.saved_model.load` alone. It is first run on a few images: an existing folder at `path` is
    replaced only if the new one computes what the Keras model computes.

    Args:
        model: See `serving_model`.
        path: Folder to write.
        preprocessing_layers: Layers put inside the graph; the signature then takes raw `uint8` images.
        metadata: Metadata to put into the folder.

    Returns:
        The path of the folder.

    Raises:
        UserError: If the model doesn't map images to outputs.
        ExportError: If Keras can't export the model, or the folder computes something else.
        OSError: If the disk is full.

    Example:
        ```python
        tas_tf.export_saved_model(result.student, "saved_model")
        ```
    """
    model = model if metadata is None else with_image_size(model, metadata.input_shape)
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
    """Writes a model made by `serving_model`, as `export_saved_model` does.

    Args:
        model: Model to write.
        path: Folder to write.
        metadata: Metadata to put into the folder.
        check: Called with the folder before it is put in place; raises to keep the existing one.
    """
    path = Path(path)
    with atomic_folder(path) as scratch:
        with _export_errors(path):
            model.export(str(scratch), verbose=False)
        if metadata is not None:
            write_extra(scratch, metadata.files("saved_model"))
        if check is not None:
            check(scratch)
    return path


def write_frozen(model: keras.Model, path: str | Path) -> Path:
    """Writes a model made by `serving_model` as a SavedModel with constants in place of its variables.

    TFLite's converter makes the same operations of it as of `write_saved_model`'s folder, several times faster: with
    variables, most of the time goes into writing and reading them.

    Args:
        model: Model to write.
        path: Folder to write.

    Raises:
        ExportError: If the model can't be traced.
        OSError: If the disk is full.
    """
    weights = [
        [tf.convert_to_tensor(variable.value) for variable in variables]
        for variables in (model.trainable_variables, model.non_trainable_variables)
    ]

    def serve(images: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs, _ = model.stateless_call(*weights, images, training=False)
        return {_OUTPUT: outputs}

    spec = tf.TensorSpec(model.input_shape, model.inputs[0].dtype, name=INPUT_NAME)
    path = Path(path)
    with atomic_folder(path) as scratch, _export_errors(path):
        traced = tf.function(serve, input_signature=[spec], autograph=False).get_concrete_function()
        module = tf.Module()
        module.held = list(traced.variables)  # those that aren't Keras's own, for example of a loaded SavedModel
        # Gradients aren't needed, and those of some activations can't be saved with constants.
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(module, str(scratch), signatures={SIGNATURE: traced}, options=options)
    return path


@contextlib.contextmanager
def _export_errors(path: Path) -> Iterator[None]:
    """Turns what goes wrong while a model is written into an `ExportError`, or an `OSError` if the disk is full."""
    try:
        yield
    except Exception as error:  # layers may raise anything while they are traced
        raise_if_full(error, path)
        raise ExportError(f"The model can't be written as a SavedModel: {error}") from error


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
        #: Shape `[batch, height, width, channels]` and type of the input images.
        self.input_spec = tuple(spec.shape), spec.dtype.name

    def predict(self, images: np.ndarray, *, batch_size: int = 128) -> np.ndarray:
        """Runs images `[n, height, width, channels]` in batches; returns outputs `[n, ...]`."""
        starts = range(0, len(images), batch_size)
        return np.concatenate([self._run(tf.constant(images[i : i + batch_size])) for i in starts])

    def bind(self, images: np.ndarray) -> Callable[[], None]:
        """Returns a function that runs `images` once, for timing: from a tensor to an array of outputs."""
        tensor = tf.constant(images)

        def run() -> None:
            self._run(tensor)

        return run

    def _run(self, images: tf.Tensor) -> np.ndarray:
        return self._signature(**{self._input: images})[self._output].numpy()


def _check_images_to_outputs(model: keras.Model) -> None:
    """Rejects a model that doesn't map a batch of images to one tensor."""
    if not isinstance(model, keras.Model) or getattr(model, "inputs", None) is None:
        raise UserError(f"`model` must be a built functional or Sequential Keras model. Received: {model!r}.")
    inputs = [tuple(tensor.shape) for tensor in model.inputs]
    outputs = [tuple(tensor.shape) for tensor in model.outputs]
    if len(inputs) != 1 or len(inputs[0]) != 4 or len(outputs) != 1 or len(outputs[0]) < 2:
        raise UserError(
            "`model` must have one input [batch, height, width, channels] and one output [batch, ..., outputs]. "
            f"Received: inputs {inputs}, outputs {outputs}."
        )


def _as_float32(model: keras.Model) -> keras.Model:
    """Returns the model in float32: LiteRT has no kernels for the 16-bit types of training."""
    config, mixed = _without_mixed_precision(model.get_config())
    return copy_model(model, config) if mixed else model


def _without_mixed_precision(config: object) -> tuple[object, bool]:
    """Returns a config with every mixed policy replaced by float32, and whether there was one."""
    if isinstance(config, list | tuple):
        items = [_without_mixed_precision(item) for item in config]
        return type(config)(item for item, _ in items), any(mixed for _, mixed in items)
    if not isinstance(config, dict):
        return config, False
    if config.get("class_name") == "DTypePolicy" and config["config"]["name"].startswith("mixed_"):
        return "float32", True
    entries = {key: _without_mixed_precision(value) for key, value in config.items()}
    return {key: value for key, (value, _) in entries.items()}, any(mixed for _, mixed in entries.values())

"""Writes a Keras network as a TensorFlow SavedModel, and runs SavedModels."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tas_tf.deploy.agreement import check_agreement, probes_for
from tas_tf.deploy.arrays import Arrays, each, in_batches
from tas_tf.deploy.errors import ExportError, raise_if_full
from tas_tf.deploy.inference import inference_model
from tas_tf.deploy.metadata import Metadata, write_extra
from tas_tf.errors import UserError
from tas_tf.files import atomic_folder
from tas_tf.graph.image_size import with_image_size
from tas_tf.graph.layers import copy_model
from tas_tf.graph.packing import names_of, structure_of

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

    All layers are in inference mode, and augmentation layers are left out. Several inputs or outputs become
    dictionaries by name.

    Args:
        model: Network from images, such as `[batch, height, width, channels]`, to `[batch, ...]`.
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
    structure = None
    if len(model.inputs) > 1:
        if preprocessing_layers:
            raise UserError("`preprocessing_layers` need a model with one input.")
        names = names_of(model, "inputs")
        wrong = [name for name in (*names, *names_of(model, "outputs")) if not re.fullmatch(r"[\w.-]+", name)]
        if wrong:
            raise UserError(
                f"`model` must have inputs and outputs whose names are letters, digits, _, - and dots, as files have. "
                f"Received: {', '.join(map(repr, wrong))}."
            )
        images = {
            name: keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=name)
            for name, tensor in zip(names, model.inputs, strict=True)
        }
        x = keras.tree.pack_sequence_as(model.input, list(images.values()))
    else:
        dtype = input_dtype or ("uint8" if preprocessing_layers else model.inputs[0].dtype)
        images = x = keras.Input(model.inputs[0].shape[1:], dtype=dtype, name=INPUT_NAME)
        structure = structure_of(model, "inputs")
    # Passed to each part: otherwise layers that process images pass `training=True` to all layers behind them.
    for layer in preprocessing_layers:
        x = layer(x, training=False)
    if isinstance(structure, Mapping):
        x = dict.fromkeys(structure, x)
    outputs = keras.tree.flatten(inference_model(_as_float32(model))(x, training=False))
    if len(outputs) > 1:
        outputs = dict(zip(names_of(model, "outputs"), outputs, strict=True))
    else:
        (outputs,) = outputs
    return keras.Model(images, outputs, name="serving")


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
        check_agreement(predict, expect, probes_for(served), format="saved_model", name="The SavedModel")

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
        with _writing(path):
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

    def serve(images: tf.Tensor | dict[str, tf.Tensor]) -> Mapping[str, tf.Tensor]:
        outputs, _ = model.stateless_call(*weights, images, training=False)
        return outputs if isinstance(outputs, Mapping) else {_OUTPUT: outputs}

    if isinstance(model.input, Mapping):
        spec = {name: tf.TensorSpec(one.shape, one.dtype, name=name) for name, one in model.input.items()}
    else:
        spec = tf.TensorSpec(model.input_shape, model.inputs[0].dtype, name=INPUT_NAME)
    path = Path(path)
    with atomic_folder(path) as scratch, _writing(path):
        traced = tf.function(serve, input_signature=[spec], autograph=False).get_concrete_function()
        module = tf.Module()
        module.held = list(traced.variables)  # those that aren't Keras's own, for example of a loaded SavedModel
        # Gradients aren't needed, and those of some activations can't be saved with constants.
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(module, str(scratch), signatures={SIGNATURE: traced}, options=options)
    return path


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turns what goes wrong while a model is written into an `ExportError`, or an `OSError` if the disk is full.

    In notebooks, TensorFlow would say where it writes: into folders that are gone at once.
    """
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel(max(level, logging.WARNING))
    try:
        yield
    except Exception as error:  # layers may raise anything while they are traced
        raise_if_full(error, path)
        raise ExportError(f"The model can't be written as a SavedModel: {error}") from error
    finally:
        logger.setLevel(level)


class LoadedSavedModel:
    """A SavedModel's serving signature, run on NumPy arrays.

    Args:
        path: Folder of the SavedModel.
    """

    def __init__(self, path: str | Path):
        # The signature alone doesn't keep the variables alive.
        self._loaded = tf.saved_model.load(str(path))
        self._signature = self._loaded.signatures[SIGNATURE]
        self._outputs = tuple(self._signature.structured_outputs)
        #: Specifications of the inputs by name, such as `images` of shape `[batch, height, width, channels]`.
        self.inputs: dict[str, tf.TensorSpec] = dict(self._signature.structured_input_signature[1])

    def predict(self, images: Arrays, *, batch_size: int = 128) -> Arrays:
        """Runs images `[n, height, width, channels]` in batches; returns outputs `[n, ...]`.

        Several inputs are given by name, and several outputs returned so.
        """
        return in_batches(lambda batch: self._run(each(tf.constant, batch)), images, batch_size)

    def bind(self, images: Arrays) -> Callable[[], None]:
        """Returns a function that runs `images` once, for timing: from a tensor to an array of outputs."""
        tensors = each(tf.constant, images)

        def run() -> None:
            self._run(tensors)

        return run

    def _run(self, images: Any) -> Arrays:
        named = images if isinstance(images, Mapping) else dict(zip(self.inputs, [images], strict=True))
        outputs = {name: tensor.numpy() for name, tensor in self._signature(**named).items()}
        return outputs if len(outputs) > 1 else outputs[self._outputs[0]]


def _check_images_to_outputs(model: keras.Model) -> None:
    """Rejects a model that doesn't map a batch of images to numbers for each."""
    if not isinstance(model, keras.Model) or getattr(model, "inputs", None) is None:
        raise UserError(f"`model` must be a built functional or Sequential Keras model. Received: {model!r}.")
    inputs = [tuple(tensor.shape) for tensor in model.inputs]
    outputs = [tuple(tensor.shape) for tensor in model.outputs]
    if any(len(shape) < 2 for shape in (*inputs, *outputs)):
        raise UserError(
            "`model` must have inputs [batch, ...], such as images, and outputs [batch, ..., outputs]. "
            f"Received: inputs {inputs}, outputs {outputs}."
        )


def _as_float32(model: keras.Model) -> keras.Model:
    """Returns the model in float32: LiteRT has no kernels for the 16-bit types of training."""
    config, mixed = _without_mixed_precision(model.get_config())
    return copy_model(model, config) if mixed else model


def _without_mixed_precision(config: Any) -> tuple[Any, bool]:
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

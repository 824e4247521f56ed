"""Checks, before anything is trained, that a network can be converted to files."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import keras
import numpy as np

from tas_tf.deploy.agreement import check_agreement, probe_images
from tas_tf.deploy.errors import ExportError
from tas_tf.deploy.inference import every_layer
from tas_tf.deploy.saved_model import LoadedSavedModel, serving_model, write_saved_model
from tas_tf.deploy.tflite import TFLiteModel, write_tflite

_MOST_NAMED = 8


def check_deployable(
    model: keras.Model, *, preprocessing_layers: Sequence[keras.layers.Layer] = (), tflite: bool = True
) -> None:
    """Converts a network to a SavedModel and to float32 TFLite, and compares both with Keras on a few random images.

    Weights don't matter, and students have the same layers, so the unpruned network can be checked before a search.

    Args:
        model: See `tas_tf.deploy.saved_model.serving_model`.
        preprocessing_layers: Layers put inside the graphs.
        tflite: Whether to check the TFLite file as well as the SavedModel.

    Raises:
        UserError: If the model isn't an image classifier.
        ExportError: If the model can't be converted, or the files compute something else. The message names the layers
            where possible.
    """
    served = serving_model(model, preprocessing_layers=preprocessing_layers)
    images = probe_images(served.input_shape, served.inputs[0].dtype)
    expect = partial(served, training=False)
    _check_deterministic(model)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            folder = write_saved_model(served, Path(scratch) / "saved_model")
            predict = LoadedSavedModel(folder).predict
            check_agreement(predict, expect, images, format="saved_model", name="The SavedModel")
            if tflite:
                predict = TFLiteModel(write_tflite(folder, Path(scratch) / "fp32.tflite")).predict
                check_agreement(predict, expect, images, format="fp32", name="The fp32 file")
        except ExportError as error:
            raise ExportError(f"{_blame(model, error)}{error}") from error


def _check_deterministic(model: keras.Model) -> None:
    """Rejects layers that are random in inference, such as Monte Carlo dropout, and names the first one."""
    layers = [layer for layer in model.layers if isinstance(layer, keras.Layer) and layer.output is not None]
    parts = keras.Model(model.inputs[0], [layer.output for layer in layers])
    images = probe_images(model.input_shape, model.inputs[0].dtype)[:1]
    runs = [keras.tree.flatten(parts(images, training=False)) for _ in range(2)]
    for layer, one, other in zip(layers, *runs, strict=True):
        if not np.array_equal(one, other, equal_nan=True):
            raise ExportError(
                f"Layer `{layer.name}` ({type(layer).__name__}) is random in inference, but files can't be. Expected: "
                "a layer that returns the same output for the same image unless `training=True`."
            )


def _blame(model: keras.Model, error: ExportError) -> str:
    """Names the layers that a converter's message is about; the message has their names in graph paths."""
    words = str(error.__cause__ or error)
    layers = {
        layer.name: f"layer `{layer.name}` ({type(layer).__name__})"
        for layer in every_layer(model)
        if re.search(rf"/{re.escape(layer.name)}(_\d+)*/", words)
    }
    named = list(layers.values())
    more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
    return f"Can't convert {', '.join(named[:_MOST_NAMED])}{more}. " if named else ""

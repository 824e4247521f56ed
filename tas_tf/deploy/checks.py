"""Checks, before anything is trained, that a network can be converted to files."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tas_tf.deploy.agreement import check_agreement, probes_for
from tas_tf.deploy.arrays import Arrays, each
from tas_tf.deploy.errors import ExportError
from tas_tf.deploy.lite_model import TFLiteModel
from tas_tf.deploy.saved_model import LoadedSavedModel, serving_model, write_frozen, write_saved_model
from tas_tf.deploy.tflite import write_tflite
from tas_tf.graph.layers import first_line, plain_model
from tas_tf.quiet import without_notes

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
        UserError: If the model doesn't map images to outputs.
        ExportError: If the model can't be converted, or the files compute something else. The message names the layers
            where possible.
    """
    with without_notes():
        served = serving_model(model, preprocessing_layers=preprocessing_layers)
        images = probes_for(served)
        expect = partial(served, training=False)
        try:
            expect(images)
        except tf.errors.OpError as error:
            raise ExportError(f"The model can't be run on random inputs: {first_line(error)}") from error
        _check_deterministic(served, each(lambda array: array[[0, -1]], images))
        with tempfile.TemporaryDirectory() as scratch:
            try:
                folder = write_saved_model(served, Path(scratch) / "saved_model")
                predict = LoadedSavedModel(folder).predict
                check_agreement(predict, expect, images, format="saved_model", name="The SavedModel")
                if tflite:
                    frozen = write_frozen(served, Path(scratch) / "frozen")
                    predict = TFLiteModel(write_tflite(frozen, Path(scratch) / "fp32.tflite")).predict
                    check_agreement(predict, expect, images, format="fp32", name="The fp32 file")
            except ExportError as error:
                raise ExportError(f"{_blame(served, error)}{error}") from error


def _check_deterministic(model: keras.Model, images: Arrays) -> None:
    """Rejects a network that is random in inference, such as one with Monte Carlo dropout, and names the layer."""
    if not _is_random(*(model(images, training=False) for _ in range(2))):
        return
    found = _first_random(model, images)
    what = "the network" if found is None else _named(found)
    raise ExportError(
        f"{what[0].upper()}{what[1:]} is random in inference, but files can't be. Expected: layers that return the "
        "same output for the same image unless `training=True`."
    )


def _first_random(model: keras.Model, images: Arrays) -> keras.Operation | None:
    """Finds the first layer or operation whose outputs differ between two runs; `None` if it can't be found.

    A layer may be part of several models, and `layer.output` may belong to another one. Hence each layer of this model
    is called once more, which gives outputs that certainly belong together.
    """
    calls = []

    def call(operation: keras.Operation, *args: Any, **kwargs: Any) -> Any:
        output = operation(*args, **kwargs)
        calls.append((operation, args if _is_nested(operation) else (), output))
        return output

    try:
        copy = keras.models.clone_model(
            plain_model(model), clone_function=lambda operation: operation, call_function=call
        )
        _, received, returned = zip(*calls, strict=True)
        traced = keras.Model(plain_model(copy).input, {"received": received, "returned": returned})
        runs = [traced(images, training=False) for _ in range(2)]
    except (TypeError, ValueError):  # a layer that can't be called again; its network is reported without a name
        return None
    outputs = (run["returned"] for run in runs)
    for (operation, _, _), args, one, other in zip(calls, runs[0]["received"], *outputs, strict=True):
        if _is_random(one, other):
            return (_first_random(operation, *args) if len(args) == 1 else None) or operation
    return None


def _is_random(one: Any, other: Any) -> bool:
    """Whether outputs of two runs differ."""
    pairs = zip(keras.tree.flatten(one), keras.tree.flatten(other), strict=True)
    return not all(np.array_equal(*pair, equal_nan=True) for pair in pairs)


def _blame(model: keras.Model, error: ExportError) -> str:
    """Names the layers and operations that a converter's message is about; the message has them in graph paths."""
    words = str(error.__cause__ or error)
    found = {
        operation.name: _named(operation)
        for operation in _every_operation(model)
        if re.search(rf"/{re.escape(operation.name)}(_\d+)*/", words)
    }
    named = list(found.values())
    more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
    return f"Can't convert {', '.join(named[:_MOST_NAMED])}{more}. " if named else ""


def _every_operation(model: keras.Model) -> Iterator[keras.Operation]:
    """Yields the layers of a model and the operations between them; a nested model is replaced by its own."""
    for operation in getattr(model, "operations", model.layers):
        if _is_nested(operation):
            yield from _every_operation(operation)
        else:
            yield operation


def _is_nested(operation: keras.Operation) -> bool:
    """Whether an operation is a model that consists of layers and can be looked into."""
    return isinstance(operation, keras.Model) and bool(getattr(operation, "inputs", None))


def _named(operation: keras.Operation) -> str:
    """A layer's or operation's name as messages give it: the kind before it tells it from an argument's."""
    kind = "layer" if isinstance(operation, keras.layers.Layer) else "operation"
    return f"{kind} `{operation.name}` ({type(operation).__name__})"

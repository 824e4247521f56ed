"""Reads a layer of a user's own class that consists of other layers, such as a residual block, as a nested model."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import keras
import numpy as np
from keras.src.utils.naming import to_snake_case

from tas_tf.graph.calls import list_calls

_TRACED: WeakKeyDictionary[keras.Layer, dict[tuple, keras.Model | None]] = WeakKeyDictionary()


def as_model(layer: Any, shapes: Sequence[tuple[int | None, ...]]) -> keras.Model | None:
    """Returns the functional model that a composite layer computes; None if the layer can't be taken apart.

    Its `call` is run on symbolic tensors. It must call its layers alike in training and inference, and hold no weights
    or random numbers of its own. The model must give the layer's outputs.

    Args:
        layer: Any layer or operation.
        shapes: Shapes of its inputs, batch first.
    """
    if not isinstance(layer, keras.Layer) or isinstance(layer, keras.Model) or not _consists_of_layers(layer):
        return None
    known = _TRACED.setdefault(layer, {})
    key = tuple(shapes)
    if key not in known:
        known[key] = _traced(layer, key)
    return known[key]


def labels(layer: keras.Layer) -> dict[str, str]:
    """Names the parts of a composite layer by their own names; `conv2d_1` is its second part, if a Conv2D has no name.

    Keras numbers unnamed layers by what the process created before, also when a model is loaded.
    """
    found = {}
    for place, part in enumerate(_parts(layer)):
        kind = to_snake_case(type(part).__name__)
        unnamed = re.fullmatch(rf"{kind}(_\d+)?", part.name)
        found[part.name] = f"{kind}_{place}" if unnamed else part.name
    return found


def inner_layer(layer: keras.Layer, name: str) -> keras.Layer:
    """Finds a layer by name in a model, or by label in a composite layer."""
    if isinstance(layer, keras.Model):
        return layer.get_layer(name)
    label_of = labels(layer)
    return next(part for part in _parts(layer) if label_of[part.name] == name)


def _parts(layer: keras.Layer) -> list[keras.Layer]:
    return list(layer._flatten_layers(include_self=False, recursive=False))  # Keras has no public list


def _consists_of_layers(layer: keras.Layer) -> bool:
    if type(layer).__module__.startswith("keras.") or not layer.built:
        return False
    parts = {id(weight) for part in _parts(layer) for weight in part.weights}
    return bool(parts) and parts == {id(weight) for weight in layer.weights}


def _traced(layer: keras.Layer, shapes: tuple) -> keras.Model | None:
    modes = (None, True, False) if "training" in inspect.signature(layer.call).parameters else (None,)
    models = [_called(layer, shapes, {"training": mode} if len(modes) > 1 else {}) for mode in modes]
    if None in models or len(set(map(_structure, models))) > 1:
        return None
    named = {one.name: one for one in _parts(layer)}
    # Layers without weights may be made where they are called.
    known = all(named.get(one.name) is one for one in models[0].layers if one.weights)
    told_apart = len(_parts(layer)) == len(named) == len(set(labels(layer).values()))
    same = known and told_apart and _computes_the_same(layer, models[0], shapes)
    return models[0] if same else None


def _called(layer: keras.Layer, shapes: tuple, options: dict[str, Any]) -> keras.Model | None:
    inputs = [keras.Input(batch_shape=shape) for shape in shapes]
    try:
        model = keras.Model(inputs, layer.call(*inputs, **options), name=layer.name)
        list_calls(model)
        return model
    except Exception:  # `call` is the user's code: whatever it can't do with symbolic tensors
        return None


def _structure(model: keras.Model) -> tuple:
    """What a model calls, without the numbered names of operations and inputs."""
    names = {layer.name for layer in model.layers if layer.weights}
    calls = list_calls(model).calls
    return tuple((call.entry["class_name"], call.layer if call.layer in names else "") for call in calls)


def _computes_the_same(layer: keras.Layer, model: keras.Model, shapes: tuple) -> bool:
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=(2, *shape[1:])).astype("float32") for shape in shapes]
    options = {"training": False} if "training" in inspect.signature(layer.call).parameters else {}
    own, others = (keras.tree.flatten(one) for one in (layer(*inputs, **options), model(inputs, training=False)))
    pairs = zip(own, others, strict=True)
    return all(np.allclose(np.asarray(one, "float32"), np.asarray(other, "float32"), atol=1e-4) for one, other in pairs)

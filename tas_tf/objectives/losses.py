"""Keras's losses: which one a model was compiled with, and what it is for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from tas_tf.errors import UserError

#: Keras's losses by name: what they are for, and the name of a regression's loss.
LOSSES: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(
        [
            *("categorical_crossentropy", "sparse_categorical_crossentropy", "categorical_focal_crossentropy"),
            *("categorical_hinge", "kl_divergence", "kullback_leibler_divergence"),
        ],
        ("classification", ""),
    ),
    **dict.fromkeys(["binary_crossentropy", "binary_focal_crossentropy"], ("decisions", "")),
    "mean_squared_error": ("regression", "mse"),
    "mean_absolute_error": ("regression", "mae"),
    **dict.fromkeys(["huber", "log_cosh"], ("regression", "huber")),
    **dict.fromkeys(
        ["mean_absolute_percentage_error", "mean_squared_logarithmic_error", "poisson"], ("regression", "mse")
    ),
}


#: Losses that each task has by itself.
_STANDARD = {
    "classification": ("categorical_crossentropy", "sparse_categorical_crossentropy"),
    "binary": ("binary_crossentropy",),
    "multilabel": ("binary_crossentropy",),
    "regression": ("mean_squared_error", "mean_absolute_error", "huber"),
}


def loss_of(model: keras.Model, given: Any = None) -> Any:
    """The loss that the user gives, otherwise the one that a model was compiled with; `None` without either."""
    compiled = getattr(model, "loss", None) if model.compiled else None
    return compiled if given is None else given


def loss_weights_of(model: keras.Model, given: Any = None) -> Any:
    """The weights of losses that the user gives, otherwise those that a model was compiled with."""
    if given is not None or not model.compiled or len(model.outputs) == 1:
        return given
    return model.get_compile_config().get("loss_weights")


def single_loss(loss: Any) -> Any:
    """The one loss of a network with one output, in a list or a dictionary or not: an object, a function or `None`.

    Raises:
        UserError: Keras knows no loss of that name.
    """
    if isinstance(loss, Mapping) and len(loss) == 1:
        loss = next(iter(loss.values()))
    if isinstance(loss, Sequence) and not isinstance(loss, str) and len(loss) == 1:
        loss = loss[0]
    if not isinstance(loss, str):
        return loss
    try:
        return keras.losses.get(loss)
    except ValueError as error:
        raise UserError(f"`loss` must be a loss that Keras knows, or a function. Received: {loss!r}.") from error


def name_of_loss(loss: Any) -> str:
    """Name of one of Keras's losses in any form that `keras.Model.compile` takes; empty for others and for none.

    >>> import keras
    >>> name_of_loss("MSE"), name_of_loss(keras.losses.BinaryCrossentropy()), name_of_loss([keras.losses.huber])
    ('mean_squared_error', 'binary_crossentropy', 'huber')
    """
    loss = single_loss(loss)
    defined = type(loss) if isinstance(loss, keras.losses.Loss) else loss
    if not str(getattr(defined, "__module__", "")).startswith("keras."):
        return ""  # a user's own may have the name of one of Keras's
    if isinstance(loss, keras.losses.Loss):
        # Users may give a loss a name of their own.
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(loss).__name__).lower()
    return str(getattr(loss, "__name__", ""))


def is_standard(loss: Any, task: str) -> bool:
    """Whether a loss is the standard one of a task, without options that change it.

    >>> import keras
    >>> is_standard("mse", "regression"), is_standard("mse", "binary")
    (True, False)
    >>> is_standard(keras.losses.CategoricalCrossentropy(label_smoothing=0.1), "classification")
    False
    """
    loss = single_loss(loss)
    name = name_of_loss(loss)
    if loss is None or name not in _STANDARD[task]:
        return loss is None
    config = loss.get_config() if isinstance(loss, keras.losses.Loss) else {}
    plain = {"label_smoothing": 0.0, "ignore_class": None, "delta": 1.0, "axis": -1}
    return all(config.get(key, value) == value for key, value in plain.items())

"""Finds out what a network is trained for: from how it ends, from its compiled loss, or as its user says."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tas_tf.errors import UserError
from tas_tf.graph.graph import Graph
from tas_tf.objectives.classification import Classification
from tas_tf.objectives.decisions import Binary, Multilabel
from tas_tf.objectives.objective import Loss, Objective, mean_over_positions
from tas_tf.objectives.regression import Regression

#: Kinds of outputs by name.
TASKS = (Classification.task, Binary.task, Multilabel.task, Regression.task)

#: Keras's losses by name: what they are for, and the name of a regression's loss.
_LOSSES: Mapping[str, tuple[str, str]] = {
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


def choose_objective(
    graph: Graph, *, task: str | None = None, loss: Any = None, class_weight: Mapping[int, float] | None = None
) -> Objective:
    """Decides what a network is trained for.

    A network that ends in a softmax is a classifier; sigmoids make decisions. One that ends in several logits is a
    classifier too, unless `task` or the loss that it was compiled with says otherwise.

    Args:
        graph: The network.
        task: One of `TASKS`; by default, the loss and the end of the network decide.
        loss: The loss that the network was compiled with, in any form that Keras takes. One that differs from the
            standard loss of the task, such as a function of your own, takes its place; functions get labels as Keras
            would (class numbers, or one-hot rows for categorical losses) and the outputs of the network.
        class_weight: Weights of classes in training, by number, for classes of images.

    Raises:
        UserError: The network doesn't suit the task, nothing says what it is for, or an argument is invalid.

    Example:
        >>> import tas_tf
        >>> from tas_tf.graph.graph import Graph
        >>> graph = Graph.from_model(tas_tf.load_network("resnet8", num_classes=4, image_size=8))
        >>> choose_objective(graph).task, choose_objective(graph, task="multilabel").task
        ('classification', 'multilabel')
    """
    if task is not None and task not in TASKS:
        raise UserError(f"`task` must be one of {', '.join(TASKS)}. Received: {task!r}.")
    last = graph[graph.output]
    outputs, positions = last.channels, tuple(last.shape[1:-1])
    compiled, regression_loss = _LOSSES.get(name_of_loss(loss), ("", ""))
    decisions = "binary" if outputs == 1 else "multilabel"
    said = task is not None
    if not said:
        by_end = _by_end(graph, decisions, is_known=single_loss(loss) is None)
        by_loss = decisions if compiled == "decisions" else compiled
        # A softmax chooses one class of several, whatever the loss.
        task = by_end if graph.ends_in in _ONE_OF_SEVERAL else by_loss or by_end
    if task is None:
        raise UserError(
            f"`task`: {graph.network} ends in {_end_in_words(graph)}, which may be for several tasks. "
            f"Expected one of {', '.join(TASKS)}, or a model compiled with its loss."
        )
    _check_end(graph, task, because="" if said or not compiled else f" (for its loss, {name_of_loss(loss)})")
    options: dict[str, Any] = {"class_weight": _weights(class_weight, task, outputs, positions)}
    if not is_standard(loss, task):
        options["own_loss"] = _own_loss(loss, graph, task, outputs)
    if task == Regression.task:
        return Regression(outputs, positions, regression_loss or "mse", graph.ends_in == "sigmoid", **options)
    kinds = {"classification": Classification, "binary": Binary, "multilabel": Multilabel}
    return kinds[task](outputs, positions, **options)


def loss_of(model: keras.Model, given: Any = None) -> Any:
    """The loss that the user gives, otherwise the one that a model was compiled with; `None` without either."""
    compiled = getattr(model, "loss", None) if model.compiled else None
    return compiled if given is None else given


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


def _own_loss(loss: Any, graph: Graph, task: str, outputs: int) -> Loss:
    """A loss for Keras as one for labels and logits. Of Keras's own, only sparse ones take class numbers."""
    function, name = single_loss(loss), name_of_loss(loss)
    function = function.call if isinstance(function, keras.losses.Loss) else function
    head = None if graph.head is None else keras.activations.get(graph.ends_in)
    is_one_hot = task == Classification.task and name != "" and not name.startswith("sparse")

    def own(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        if is_one_hot:
            labels = tf.one_hot(labels, outputs, dtype=logits.dtype)
        found = tf.convert_to_tensor(function(labels, logits if head is None else head(logits)))
        # A function may average over the batch, too.
        found = mean_over_positions(found) if found.shape.rank else tf.fill(tf.shape(logits)[:1], found)
        return tf.cast(found, logits.dtype)

    return own


def _weights(
    class_weight: Mapping[int, float] | None, task: str, outputs: int, positions: tuple[int, ...]
) -> tuple[float, ...]:
    """Weights of all classes; classes that aren't named have weight 1."""
    if class_weight is None:
        return ()
    if task not in (Classification.task, Binary.task) or positions:
        raise UserError("`class_weight` needs images with one class each.")
    classes = max(2, outputs)
    valid = isinstance(class_weight, Mapping) and all(
        number in range(classes) and weight >= 0 for number, weight in class_weight.items()
    )
    if not valid:
        raise UserError(
            f"`class_weight` must map class numbers from 0 to {classes - 1} to weights of at least 0. Received: "
            f"{class_weight}."
        )
    return tuple(float(class_weight.get(number, 1.0)) for number in range(classes))


# Last activations of classifiers.
_ONE_OF_SEVERAL = ("softmax", "log_softmax")
#: Losses that each task has by itself.
_STANDARD = {
    Classification.task: ("categorical_crossentropy", "sparse_categorical_crossentropy"),
    Binary.task: ("binary_crossentropy",),
    Multilabel.task: ("binary_crossentropy",),
    Regression.task: ("mean_squared_error", "mean_absolute_error", "huber"),
}


def _by_end(graph: Graph, decisions: str, *, is_known: bool) -> str | None:
    """The task by the last activation. Several linear outputs are logits, unless a loss of the user's own is used."""
    if graph.ends_in == "sigmoid":
        return decisions
    several = graph[graph.output].channels > 1
    are_logits = several and _is_linear(graph) and is_known
    return "classification" if graph.ends_in in _ONE_OF_SEVERAL or are_logits else None


def _check_end(graph: Graph, task: str, *, because: str) -> None:
    """Checks that a network's last layer suits a task.

    Args:
        graph: The network.
        task: The task.
        because: Why the task is taken to be this one, if the user doesn't say it.

    Raises:
        UserError: It doesn't.
    """
    outputs, end = graph[graph.output].channels, graph.ends_in
    wanted = {
        "classification": outputs > 1 and (end in _ONE_OF_SEVERAL or _is_linear(graph)),
        "binary": outputs == 1 and (end == "sigmoid" or _is_linear(graph)),
        "multilabel": outputs > 1 and (end == "sigmoid" or _is_linear(graph)),
        "regression": end not in _ONE_OF_SEVERAL,
    }
    if not wanted[task]:
        expected = {
            "classification": "at least 2 outputs that are logits or a softmax",
            "binary": "one output that is a logit or a sigmoid",
            "multilabel": "at least 2 outputs that are logits or sigmoids",
            "regression": "outputs that aren't a softmax",
        }
        raise UserError(
            f"`task`={task}{because} needs a network with {expected[task]}. Received: {graph.network}, which ends in "
            f"{_end_in_words(graph)}.{' Give `task`, or another loss.' if because else ''}"
        )


def _is_linear(graph: Graph) -> bool:
    return graph.ends_in == "linear"


def _end_in_words(graph: Graph) -> str:
    outputs = graph[graph.output].channels
    return f"{outputs} output{'' if outputs == 1 else 's'} with the activation `{graph.ends_in}`"

"""Finds out what a network is trained for: from how it ends, from its compiled loss, or as its user says."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tas_tf.errors import UserError
from tas_tf.graph.ends import End
from tas_tf.graph.graph import Graph
from tas_tf.objectives.classification import Classification
from tas_tf.objectives.decisions import Binary, Multilabel
from tas_tf.objectives.losses import LOSSES, is_standard, name_of_loss, single_loss
from tas_tf.objectives.means import mean_over_positions
from tas_tf.objectives.objective import Loss, Objective
from tas_tf.objectives.regression import Regression
from tas_tf.objectives.several import Part, Several

#: Kinds of outputs by name.
TASKS = (Classification.task, Binary.task, Multilabel.task, Regression.task)


def choose_objective(
    graph: Graph,
    *,
    task: str | Mapping[str, str] | None = None,
    loss: Any = None,
    loss_weights: Any = None,
    class_weight: Mapping[int, float] | None = None,
) -> Objective:
    """Decides what a network is trained for.

    A network that ends in a softmax is a classifier; sigmoids make decisions. One that ends in several logits is a
    classifier too, unless `task` or the loss that it was compiled with says otherwise. Of several outputs, this holds
    for each.

    Args:
        graph: The network.
        task: One of `TASKS`, or one for each output, by name; by default, the loss and the end of the network decide.
        loss: The loss that the network was compiled with, in any form that Keras takes. One that differs from the
            standard loss of the task, such as a function of your own, takes its place; functions get labels as Keras
            would (class numbers, or one-hot rows for categorical losses) and the outputs of the network.
        loss_weights: Weights of the losses of several outputs, in any form that Keras takes.
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
    names = [end.name for end in graph.ends]
    tasks = by_output(task, names, "task", default=None)
    for given in tasks.values():
        if given is not None and given not in TASKS:
            raise UserError(f"`task` must be one of {', '.join(TASKS)}. Received: {given!r}.")
    losses, weights = by_output(loss, names, "loss"), by_output(loss_weights, names, "loss_weights", default=1.0)
    for weight in weights.values():
        if not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise UserError(f"`loss_weights` must be numbers of at least 0. Received: {weight!r}.")
    if len(names) == 1:
        return _of_end(graph, graph.end, tasks[names[0]], loss, class_weight)
    if class_weight is not None:
        raise UserError("`class_weight` needs a network with one output. Give `sample_weight` in the data.")
    return Several.of(
        [
            Part(end.name, _of_end(graph, end, tasks[end.name], losses[end.name], None), weights[end.name])
            for end in graph.ends
        ]
    )


def by_output(given: Any, names: Sequence[str], argument: str, default: Any = None) -> dict[str, Any]:
    """What a user gives for each output, by its name.

    Args:
        given: A dictionary by name, a list in the order of the outputs, or one value for all of them.
        names: Names of the outputs, in order.
        argument: Name of the argument in messages.
        default: Value of outputs that aren't given.

    Raises:
        UserError: There are other names, or another number of values.

    Example:
        >>> by_output({"size": "mse"}, ["kind", "size"], "loss")
        {'kind': None, 'size': 'mse'}
        >>> by_output([1, 2], ["kind", "size"], "loss_weights")
        {'kind': 1, 'size': 2}
    """
    if isinstance(given, Mapping):
        unknown = sorted(map(str, set(given) - set(names)))
        if unknown and (len(names) > 1 or argument == "task"):
            raise UserError(
                f"`{argument}` must have the names of the outputs, {', '.join(names)}. Received: {', '.join(unknown)}."
            )
        return {name: given.get(name, default) for name in names}
    if isinstance(given, list | tuple):
        if len(given) != len(names):
            raise UserError(f"`{argument}` must have a value for each output, {', '.join(names)}. Received: {given}.")
        return {name: default if one is None else one for name, one in zip(names, given, strict=True)}
    return dict.fromkeys(names, default if given is None else given)


def _of_end(graph: Graph, end: End, task: str | None, loss: Any, class_weight: Mapping[int, float] | None) -> Objective:
    """What one output is for."""
    last = graph[end.output]
    outputs, positions = last.channels, tuple(last.shape[1:-1])
    compiled, regression_loss = LOSSES.get(name_of_loss(loss), ("", ""))
    decisions = "binary" if outputs == 1 else "multilabel"
    said = task is not None
    if not said:
        by_end = _by_end(graph, end, decisions, is_known=single_loss(loss) is None)
        by_loss = decisions if compiled == "decisions" else compiled
        # A softmax chooses one class of several, whatever the loss.
        task = by_end if graph.activation_of(end) in _ONE_OF_SEVERAL else by_loss or by_end
    if task is None:
        raise UserError(
            f"`task`: {_named(graph, end)} ends in {_end_in_words(graph, end)}, which may be for several tasks. "
            f"Expected one of {', '.join(TASKS)}, or a model compiled with its loss."
        )
    _check_end(graph, end, task, because="" if said or not compiled else f" (for its loss, {name_of_loss(loss)})")
    options: dict[str, Any] = {"class_weight": _weights(class_weight, task, outputs, positions)}
    if not is_standard(loss, task):
        options["own_loss"] = _own_loss(loss, graph, end, task, outputs)
    if task == Regression.task:
        squashed = graph.activation_of(end) == "sigmoid"
        return Regression(outputs, positions, regression_loss or "mse", squashed, **options)
    kinds: dict[str, Callable[..., Objective]] = {
        "classification": Classification,
        "binary": Binary,
        "multilabel": Multilabel,
    }
    return kinds[task](outputs, positions, **options)


def _own_loss(loss: Any, graph: Graph, end: End, task: str, outputs: int) -> Loss:
    """A loss for Keras as one for labels and logits. Of Keras's own, only sparse ones take class numbers."""
    function, name = single_loss(loss), name_of_loss(loss)
    function = function.call if isinstance(function, keras.losses.Loss) else function
    head = None if end.head is None else keras.activations.get(graph.activation_of(end))
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


def _by_end(graph: Graph, end: End, decisions: str, *, is_known: bool) -> str | None:
    """The task by the last activation. Several linear outputs are logits, unless a loss of the user's own is used."""
    activation = graph.activation_of(end)
    if activation == "sigmoid":
        return decisions
    several = graph[end.output].channels > 1
    are_logits = several and activation == "linear" and is_known
    return "classification" if activation in _ONE_OF_SEVERAL or are_logits else None


def _check_end(graph: Graph, end: End, task: str, *, because: str) -> None:
    """Checks that a network's last layer suits a task.

    Args:
        graph: The network.
        end: The output.
        task: The task.
        because: Why the task is taken to be this one, if the user doesn't say it.

    Raises:
        UserError: It doesn't.
    """
    outputs, activation = graph[end.output].channels, graph.activation_of(end)
    decides = activation in ("sigmoid", "linear")
    wanted = {
        "classification": outputs > 1 and activation in (*_ONE_OF_SEVERAL, "linear"),
        "binary": outputs == 1 and decides,
        "multilabel": outputs > 1 and decides,
        "regression": activation not in _ONE_OF_SEVERAL,
    }
    if not wanted[task]:
        expected = {
            "classification": "at least 2 outputs that are logits or a softmax",
            "binary": "one output that is a logit or a sigmoid",
            "multilabel": "at least 2 outputs that are logits or sigmoids",
            "regression": "outputs that aren't a softmax",
        }
        raise UserError(
            f"`task`={task}{because} needs a network with {expected[task]}. Received: {_named(graph, end)}, which ends "
            f"in {_end_in_words(graph, end)}.{' Give `task`, or another loss.' if because else ''}"
        )


def _named(graph: Graph, end: End) -> str:
    """The network, or its output if there are several."""
    return graph.network if len(graph.ends) == 1 else f"the output `{end.name}` of {graph.network}"


def _end_in_words(graph: Graph, end: End) -> str:
    outputs = graph[end.output].channels
    return f"{outputs} output{'' if outputs == 1 else 's'} with the activation `{graph.activation_of(end)}`"

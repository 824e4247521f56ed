"""Scores of a layer's channels, from its weights or from gradients on a few batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import keras
import numpy as np
import tensorflow as tf

from tas_tf.errors import UserError
from tas_tf.graph.kinds import Kind
from tas_tf.graph.layers import original_layer
from tas_tf.objectives.choose import choose_objective
from tas_tf.objectives.objective import Objective
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import build_student, inherit_weights, named_weights

#: Images and labels.
Batches = Iterable[tuple[tf.Tensor, tf.Tensor]]
Scores = dict[str, np.ndarray]

_PROBES = 4  # random directions in which logits are differentiated for each batch


def score_channels(
    criterion: str,
    model: keras.Model,
    space: SearchSpace,
    batches: Batches | None = None,
    objective: Objective | None = None,
) -> Scores:
    """Scores the channels that each layer of the width units makes; higher is more important.

    Args:
        criterion: `l1`, the norm of the channel's filter (Li et al. 2017, https://arxiv.org/abs/1608.08710); `fpgm`,
            the distance of the filter from the layer's geometric median (He et al. 2019,
            https://arxiv.org/abs/1811.00250); `bn_scale`, the scale of the batch normalisation behind the layer (Liu et
            al. 2017, https://arxiv.org/abs/1708.06519); `taylor`, how much the loss reacts to the channel (Molchanov et
            al. 2019, https://arxiv.org/abs/1906.10771); `lfh`, how much the logits react to it, without labels.
        model: The trained network.
        space: Search space of the network.
        batches: A few batches for `taylor` and `lfh`.
        objective: What the outputs mean, for `taylor`; by default, the network's end tells.

    Returns:
        Scores by layer, `[width]` each. With `bn_scale`, layers without a scale behind them have none.

    Raises:
        UserError: The criterion is unknown or needs batches.
    """
    if criterion not in CRITERIA:
        raise UserError(f"`importance` must be one of {', '.join(CRITERIA)}. Received: {criterion!r}.")
    if criterion == "bn_scale":
        return _scales(model, space)
    if criterion in _OF_FILTERS:
        score = _OF_FILTERS[criterion]
        return {member: score(_filters(model, space, member)) for member in space.unit_of}
    if batches is None:
        raise UserError(f"`importance`={criterion} needs images. Expected batches of images and labels.")
    if criterion == "lfh":
        return _reactions(model, space, batches, _random_directions)
    known = choose_objective(space.graph) if objective is None else objective
    return _reactions(model, space, batches, lambda logits, labels, number: [known.training_losses(labels, logits)])


def _filters(model: keras.Model, space: SearchSpace, member: str) -> np.ndarray:
    """The filters of a layer as rows, `[width, weights]`."""
    weights = named_weights(original_layer(model, space.graph[member]))
    kernel = weights["pointwise_kernel" if "pointwise_kernel" in weights else "kernel"]
    if space.graph[member].kind is Kind.TRANSPOSED:
        kernel = np.swapaxes(kernel, -1, -2)
    return kernel.reshape(-1, kernel.shape[-1]).T.astype(np.float64)


def _l1_norms(filters: np.ndarray) -> np.ndarray:
    return np.abs(filters).sum(1)


def _distances(filters: np.ndarray) -> np.ndarray:
    """Sums of Euclidean distances to all other filters; smallest near the geometric median."""
    squares = (filters**2).sum(1)
    # Rounding may make the squared distance of nearly equal filters negative.
    return np.sqrt(np.maximum(squares[:, None] + squares - 2 * filters @ filters.T, 0)).sum(1)


def _scales(model: keras.Model, space: SearchSpace) -> Scores:
    weights = {member: named_weights(original_layer(model, space.graph[norm])) for member, norm in space.norms.items()}
    return {member: np.abs(one["gamma"].astype(np.float64)) for member, one in weights.items() if "gamma" in one}


def _reactions(
    model: keras.Model,
    space: SearchSpace,
    batches: Batches,
    targets: Callable[[tf.Tensor, tf.Tensor, int], list[tf.Tensor]],
) -> Scores:
    """Root mean squares, over images and targets, of the gradient with respect to a gate of 1 on each channel."""
    shape = Shape.full(space)
    flat = build_student(space, shape, logits=True)
    inherit_weights(flat, model, space, shape)
    ends = {member: space.norms.get(member, member) for member in space.unit_of}
    tapped = keras.Model(
        flat.inputs[0], [flat.outputs[0], *(_first_output(flat.get_layer(end)) for end in ends.values())]
    )

    @tf.function(reduce_retracing=True)
    def react(images: tf.Tensor, labels: tf.Tensor, number: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape(persistent=True) as tape:
            logits, *features = tapped(images, training=False)
            wanted = targets(tf.cast(logits, tf.float32), labels, number)
        sums = [0.0] * len(features)
        for target in wanted:
            # Images don't influence each other in inference, so the sum's gradient holds that of each image.
            for place, gradient in enumerate(tape.gradient(target, features)):
                product = tf.cast(gradient, tf.float32) * tf.cast(features[place], tf.float32)
                reacts = tf.reduce_sum(tf.reshape(product, [len(images), -1, product.shape[-1]]), 1)
                sums[place] += tf.reduce_mean(reacts**2, 0) / len(wanted)
        return sums

    reactions = [react(*batch, tf.constant(number)) for number, batch in enumerate(batches)]
    means = [np.mean([one.numpy() for one in layer], axis=0) for layer in zip(*reactions, strict=True)]
    return {member: np.sqrt(mean).astype(np.float64) for member, mean in zip(ends, means, strict=True)}


def _first_output(layer: keras.Layer) -> keras.KerasTensor:
    """The output of a layer, or of the first of its calls, of which Keras has no public list."""
    return layer._inbound_nodes[0].output_tensors[0]


def _random_directions(logits: tf.Tensor, labels: tf.Tensor, number: tf.Tensor) -> list[tf.Tensor]:
    """The logits along random vectors of -1 and 1; squared gradients then estimate the sum over all logits."""
    del labels
    directions = []
    for probe in range(_PROBES):
        signs = tf.random.stateless_uniform(tf.shape(logits), tf.stack([number, probe]), 0, 2, dtype=tf.int32)
        directions.append(logits * tf.cast(2 * signs - 1, tf.float32))
    return directions


_OF_FILTERS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {"l1": _l1_norms, "fpgm": _distances}
#: All criteria.
CRITERIA = (*_OF_FILTERS, "lfh", "taylor", "bn_scale")
#: Criteria that need batches of images.
FROM_IMAGES = ("lfh", "taylor")

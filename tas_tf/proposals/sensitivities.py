"""How much each narrower width and each shallower depth changes a network's output, and shapes of least change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np
import tensorflow as tf

from tas_tf.cost.cost_model import CostModel
from tas_tf.decode.decode import decode
from tas_tf.objectives.objective import Objective
from tas_tf.space.choices import Choice, ChoiceTable
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.supernet.build import build_supernet
from tas_tf.supernet.layers.statistics import averaged_statistics
from tas_tf.supernet.sample import Sample
from tas_tf.supernet.transfer import load_teacher

#: Images that suffice to measure damage, as arguments of `TrainingData.calibration`.
IMAGES = {"batch_size": 64, "batches": 1}
# Candidates of each choice that are measured; the others are interpolated.
_MEASURED = 4
_TEMPERATURE = 4.0
# A damage beyond this decides as clearly as any larger one, and its probability doesn't underflow.
_MOST = 200.0


@dataclass(frozen=True, eq=False)
class Sensitivities:
    """Damage done by each candidate alone, in nats: the divergence of the outputs from the unpruned network's.

    Attributes:
        widths: `[units, candidates]`, in the order of the space's searched units; 0 for the full width.
        depths: `[stages, candidates]`, in the order of the space's searched stages; 0 for the full depth.
    """

    widths: np.ndarray
    depths: np.ndarray


def measure_sensitivities(
    model: keras.Model, space: SearchSpace, batches: Iterable[tuple[tf.Tensor, tf.Tensor]], objective: Objective
) -> Sensitivities:
    """Measures how much the outputs of a trained network change when a single unit or stage is made smaller.

    Batch normalisation uses the statistics of each batch, which suit the smaller network. Four candidates of each unit
    and stage are measured, the others are interpolated, and a smaller candidate never counts as less damage.

    Args:
        model: The trained network, with its channels in order of importance.
        space: Search space of the network.
        batches: A few batches of images and labels.
        objective: What the outputs mean.

    Reference:
        Frantar and Alistarh 2022, "SPDY", https://arxiv.org/abs/2201.13096
    """
    supernet = build_supernet(space)
    load_teacher(supernet, model, space)

    @tf.function(reduce_retracing=True)
    def outputs(images, sample):
        with averaged_statistics(tf.constant(0.0)):
            return supernet(images, sample=sample, training=False)

    def outputs_of(shape: Shape) -> list[tf.Tensor]:
        sample = tuple(tf.constant(array) for array in Sample.one_hot(space, shape).arrays(space))
        return [outputs(images, sample) for images in seen]

    seen, full = [images for images, _ in batches], Shape.full(space)
    wanted = outputs_of(full)

    def damage(shape: Shape) -> float:
        pairs = zip(wanted, outputs_of(shape), strict=True)
        divergences = [objective.divergences(want, found, _TEMPERATURE) for want, found in pairs]
        return float(tf.reduce_mean(tf.concat(divergences, axis=0)))

    def narrowed(name: str, width: int) -> float:
        return damage(replace(full, widths={**full.widths, name: width}))

    def shortened(name: str, depth: int) -> float:
        return damage(replace(full, depths={**full.depths, name: depth}))

    return Sensitivities(
        _curves(space.searched_units, space.width_choices, narrowed),
        _curves(space.searched_stages, space.depth_choices, shortened),
    )


def _curves(choices: Sequence[Choice], table: ChoiceTable, damage: Callable[[str, int], float]) -> np.ndarray:
    rows = []
    for choice in choices:
        *smaller, full = choice.candidates
        places = np.unique(np.linspace(0, len(smaller) - 1, min(_MEASURED, len(smaller))).round().astype(int))
        measured = [smaller[place] for place in places]
        # Noise may make a smaller candidate look better than a larger one.
        values = np.maximum.accumulate([0.0, *(damage(choice.name, count) for count in reversed(measured))])
        rows.append(np.interp(choice.candidates, [*measured, full], values[::-1]))
    return table.pack(rows, dtype=np.float64)


def least_damaged(
    cost: CostModel, damage: Sensitivities, *, limit: int, spread: float = 0.0, seed: int | Sequence[int] = 0
) -> Shape:
    """Finds the shape within a budget whose choices do the least damage in sum.

    Args:
        cost: Cost model.
        damage: Damage of each candidate.
        limit: Budget.
        spread: Multiplies the damage of each unit and stage by a random factor, whose logarithm has this standard
            deviation.
        seed: Seed of the factors.

    Raises:
        UserError: The budget can't be reached.
    """
    rng = np.random.default_rng(seed)

    def probabilities(rows: np.ndarray) -> np.ndarray:
        # The most probable shape is the one of least damage if a candidate's probability is exp(-damage).
        factors = np.exp(spread * rng.standard_normal((len(rows), 1)))
        return np.exp(-np.minimum(rows * factors, _MOST))

    widths, depths = probabilities(damage.widths), probabilities(damage.depths)
    return decode(cost, widths, depths, limit=limit, tolerance=limit // 50)

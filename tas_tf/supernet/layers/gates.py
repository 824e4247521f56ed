"""The layer that holds the architecture logits of all widths and depths and draws candidates from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tas_tf.errors import UserError
from tas_tf.space.choices import ChoiceTable
from tas_tf.supernet.layers.gumbel import draw_candidates, gumbel_noise, mixture_weights, perturb
from tas_tf.supernet.layers.normalization import PACKAGE
from tas_tf.supernet.settings import DrawSettings

_ABSENT = -float("inf")


@keras.saving.register_keras_serializable(package=PACKAGE)
class ArchitectureGates(keras.layers.Layer):
    """Holds one vector of logits for each searched unit and stage.

    Calling the layer with a step draws `num_drawn` distinct widths with their weights for each unit, and the weights of
    all depths for each stage. Equal seeds and steps give equal draws on every replica.

    Args:
        units: `{name, candidates}` for each unit.
        stages: `{name, depths}` for each stage.
        num_drawn: Number of widths drawn at once. Units with fewer candidates draw all of them.
        noise: Whether Gumbel noise is added. Draws without noise are still random, but only follow the probabilities.
        seed: Random seed of the draws and of the initial logits.
        init_stddev: Standard deviation of the initial logits.
    """

    def __init__(
        self,
        units: Sequence[Mapping[str, Any]],
        stages: Sequence[Mapping[str, Any]],
        *,
        num_drawn: int = DrawSettings.num_drawn,
        noise: bool = DrawSettings.noise,
        seed: int = 0,
        init_stddev: float = 0.01,
        **kwargs: Any,
    ):
        kwargs.setdefault("dtype", "float32")  # regardless of the global dtype policy
        super().__init__(**kwargs)
        if num_drawn < 1:
            raise UserError(f"`num_drawn` must be at least 1. Received: {num_drawn}.")
        self.units, self.stages = [dict(unit) for unit in units], [dict(stage) for stage in stages]
        self.width_choices = _choices(self.units, "candidates")
        self.depth_choices = _choices(self.stages, "depths")
        self.num_drawn, self.noise, self.seed, self.init_stddev = num_drawn, noise, seed, init_stddev
        constant = keras.initializers.Constant(5.0)
        self.temperature = self.add_weight(
            name="temperature", shape=(), initializer=constant, trainable=False, autocast=False
        )
        self.width_logits = [self._add_logits(unit["name"], len(unit["candidates"])) for unit in units]
        self.depth_logits = [self._add_logits(stage["name"], len(stage["depths"])) for stage in stages]
        self.built = True

    def _add_logits(self, name: str, count: int):
        # A single seed would give equal logits to all choices with the same number of candidates.
        seed = self.seed * 100_003 + len(self.weights)
        initializer = keras.initializers.RandomNormal(stddev=self.init_stddev, seed=seed)
        return self.add_weight(name=f"{name}_logits", shape=(count,), initializer=initializer, autocast=False)

    def logits_of(self, name: str):
        """The logits variable of a unit or stage."""
        for choice, variable in zip([*self.units, *self.stages], [*self.width_logits, *self.depth_logits], strict=True):
            if choice["name"] == name:
                return variable
        raise KeyError(name)

    def call(self, step):
        """Draws the candidates of one step.

        Args:
            step: Scalar integer, different for each sub-step.

        Returns:
            Indices `[units, drawn]` int32, weights `[units, drawn]`, depth weights `[stages, candidates]`.
        """
        step = tf.cast(step, tf.int32)
        seed = tf.stack([tf.constant(self.seed, tf.int32), step])
        seeds = tf.unstack(tf.random.split(seed, 3, alg="philox"), num=3)
        widths = self._perturbed(self.width_logits, self.width_choices, seeds[0])
        drawn = draw_candidates(widths, self._num_columns, seeds[1])
        weights = mixture_weights(widths, drawn)
        depths = self._perturbed(self.depth_logits, self.depth_choices, seeds[2])
        return tf.where(weights > 0, drawn, 0), weights, tf.nn.softmax(depths)

    @property
    def _num_columns(self) -> int:
        return min(self.num_drawn, self.width_choices.longest)

    def _perturbed(self, variables, choices: ChoiceTable, seed: tf.Tensor) -> tf.Tensor:
        logits = _padded(variables, choices)
        noise = gumbel_noise(tuple(logits.shape), seed) if self.noise else tf.zeros(logits.shape)
        return perturb(logits, noise, tf.convert_to_tensor(self.temperature))

    def probabilities(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Softmax of the logits without noise, padded with 0: `[units, candidates]` and `[stages, candidates]`."""
        return tuple(
            tf.nn.softmax(_padded(variables, choices))
            for variables, choices in ((self.width_logits, self.width_choices), (self.depth_logits, self.depth_choices))
        )

    def compute_output_spec(self, step):
        """Returns the shapes and types of the outputs."""
        drawn = (self.width_choices.num_rows, self._num_columns)
        return (
            keras.KerasTensor(drawn, "int32"),
            keras.KerasTensor(drawn, "float32"),
            keras.KerasTensor(self.depth_choices.shape, "float32"),
        )

    def get_config(self):
        """Returns the constructor arguments."""
        config = super().get_config()
        own = ("units", "stages", "num_drawn", "noise", "seed", "init_stddev")
        return {**config, **{name: getattr(self, name) for name in own}}


def _choices(configs: Sequence[Mapping[str, Any]], key: str) -> ChoiceTable:
    return ChoiceTable(tuple(each["name"] for each in configs), tuple(tuple(each[key]) for each in configs))


def _padded(variables, choices: ChoiceTable) -> tf.Tensor:
    """Logits as one tensor, `[rows, candidates]`, padded with minus infinity, with at least one row."""
    longest = choices.longest
    if not variables:
        return tf.constant([[0.0] + [_ABSENT] * (longest - 1)])
    rows = [
        tf.pad(tf.convert_to_tensor(variable), [[0, longest - variable.shape[0]]], constant_values=_ABSENT)
        for variable in variables
    ]
    return tf.stack(rows)

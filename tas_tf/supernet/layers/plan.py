"""Turns one sample of candidates into the active widths and mixing taps that the supernet's layers need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tas_tf.space.choices import ChoiceTable
from tas_tf.supernet.layers.interpolation import widening_taps
from tas_tf.supernet.layers.normalization import PACKAGE


@keras.saving.register_keras_serializable(package=PACKAGE)
class ChannelPlan(keras.layers.Layer):
    """Computes widths and mixing for all units and stages at once, so that other layers only look up their values.

    Call arguments:
        inputs: Candidate indices `[units, drawn]` int32, their weights `[units, drawn]`, and the weights of all depth
            candidates `[stages, candidates]`. Weights are float32 and padded with 0.

    Returns:
        A dict:

        - `active`: number of active channels of each source, `[sources]`, int32. Sources are searched units, searched
          stages, then constants;
        - `units`: for each unit, its taps: indices `[drawn * 2 * channels, 2]` of (candidate, input channel), indices
          of (input channel, output channel), and shares `[drawn * 2 * channels]`;
        - `stages`: for each stage, the weights of its depths `[depths]`, followed by mixing matrices
          `[depths, channels, channels]` if its blocks differ in width.

    Args:
        units: `{name, width, candidates}` for each searched unit.
        stages: `{name, width, ends, depths}` for each searched stage. `ends` are the sources of the block outputs by
            depth candidate, or a single source if all are equal.
        constants: Widths of the fixed sources, by name.
    """

    def __init__(self, units: Sequence[dict], stages: Sequence[dict], constants: dict[str, int], **kwargs: Any):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.units, self.stages, self.constants = list(units), list(stages), dict(constants)
        names = [*(unit["name"] for unit in units), *(stage["name"] for stage in stages), *constants]
        self.sources = {name: place for place, name in enumerate(names)}

    def build(self, inputs_shape):
        """Makes no weights."""
        self.built = True

    def call(self, inputs):
        """Plans one sample."""
        indices, weights, depths = inputs
        widths, targets = self._unit_widths(indices, weights)
        active = {unit["name"]: targets[place] for place, unit in enumerate(self.units)}
        active.update({name: tf.constant(width) for name, width in self.constants.items()})
        stages = {}
        for place, stage in enumerate(self.stages):
            shares = depths[place, : len(stage["depths"])]
            ends = tf.stack([active[end] for end in stage["ends"]])
            if len(stage["ends"]) == 1:
                active[stage["name"]] = ends[0]
                stages[stage["name"]] = (shares,)
            else:
                target = tf.reduce_max(tf.where(shares > 0, ends, 0))
                active[stage["name"]] = target
                stages[stage["name"]] = (shares, _mixing_matrices(ends, target, shares, stage["width"]))
        return {
            "active": tf.stack([active[name] for name in self.sources]) if self.sources else tf.zeros([0], tf.int32),
            "units": self._taps(indices, weights, widths, targets),
            "stages": stages,
        }

    def _unit_widths(self, indices, weights):
        if not self.units:
            return None, None
        candidates = [tuple(unit["candidates"]) for unit in self.units]
        choices = ChoiceTable(tuple(unit["name"] for unit in self.units), tuple(candidates))
        # Padding has width 1: it may be indexed, but always with weight 0.
        table = tf.constant(choices.pack(candidates, fill=1, dtype=np.int32))
        widths = tf.gather(table, indices, batch_dims=1)
        return widths, tf.reduce_max(tf.where(weights > 0, widths, 1), axis=1)

    def _taps(self, indices, weights, widths, targets) -> dict[str, tuple]:
        taps: dict[str, tuple] = {}
        by_width: dict[int, list[int]] = {}
        for place, unit in enumerate(self.units):
            by_width.setdefault(unit["width"], []).append(place)
        for channels, places in by_width.items():
            # Process all units of one width together, to run a few operations for all instead of a few for each.
            own_indices, own_weights, own_widths, own_targets = (
                tf.gather(tensor, places) for tensor in (indices, weights, widths, targets)
            )
            limit = tf.minimum(own_widths, own_targets[:, None])
            inputs, shares = widening_taps(limit, own_targets, channels)
            candidate = tf.broadcast_to(own_indices[:, :, None, None], tf.shape(inputs))
            outputs = tf.broadcast_to(tf.range(channels), tf.shape(inputs))
            shares = shares * own_weights[:, :, None, None]
            flat = [tf.reshape(tensor, [len(places), -1]) for tensor in (candidate, inputs, outputs, shares)]
            candidate, inputs, outputs, shares = flat
            reads = tf.unstack(tf.stack([candidate, inputs], -1), num=len(places))
            moves = tf.unstack(tf.stack([inputs, outputs], -1), num=len(places))
            for place, *tap in zip(places, reads, moves, tf.unstack(shares, num=len(places)), strict=True):
                taps[self.units[place]["name"]] = tuple(tap)
        return taps

    def get_config(self):
        """Returns the constructor arguments."""
        config = super().get_config()
        return {**config, "units": self.units, "stages": self.stages, "constants": self.constants}


def _mixing_matrices(ends: tf.Tensor, target: tf.Tensor, shares: tf.Tensor, channels: int) -> tf.Tensor:
    """Makes the matrices that widen block outputs to `target` and weight them, `[depths, channels, channels]`."""
    depths = ends.shape[0]
    inputs, taps = widening_taps(tf.minimum(ends, target)[:, None], tf.fill([depths], target), channels)
    inputs, taps = inputs[:, 0], taps[:, 0] * shares[:, None, None]
    depth = tf.broadcast_to(tf.range(depths)[:, None, None], tf.shape(inputs))
    outputs = tf.broadcast_to(tf.range(channels), tf.shape(inputs))
    places = tf.reshape(tf.stack([depth, inputs, outputs], -1), [-1, 3])
    return tf.scatter_nd(places, tf.reshape(taps, [-1]), [depths, channels, channels])

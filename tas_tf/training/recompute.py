"""Runs a model in segments whose activations are computed again in the backward pass instead of being kept."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tas_tf.errors import UserError
from tas_tf.training.calls import ModelCall, record_calls, replace_tensors, run_call, tensors_in
from tas_tf.training.segments import Flow

#: Takes the inputs of a model; returns its outputs in training mode, and losses that its layers add.
Forward = Callable[[Any], tuple[Any, list[tf.Tensor]]]


def make_forward(model: keras.Model, *, recompute: bool) -> Forward:
    """Returns a function that runs a model in training mode.

    Args:
        model: Functional model.
        recompute: Whether activations are computed again in the backward pass, see `Recomputing`.

    Raises:
        UserError: The model can't be run in segments.
    """
    if recompute:
        return Recomputing(model)

    def forward(inputs: Any) -> tuple[Any, list[tf.Tensor]]:
        return model(inputs, training=True), model.losses

    return forward


class Recomputing:
    """Runs a model in training mode; the backward pass computes activations again, one segment at a time.

    Memory holds what passes from one segment to the next, and the activations of a single segment. Results, gradients
    and all states are those of the model itself: the second computation starts from the states that layers had before
    the first, so that random layers draw the same, and what it updates is dropped.

    Args:
        model: Functional model. Its variables are those that are trained.

    Raises:
        UserError: A layer makes masks, which pass from call to call unseen.

    Example:
        >>> images = keras.Input((8, 8, 3))
        >>> model = keras.Model(images, keras.layers.Conv2D(4, 3)(images))
        >>> outputs, losses = Recomputing(model)(tf.ones([2, 8, 8, 3]))
        >>> outputs.shape, losses
        (TensorShape([2, 6, 6, 4]), [])
    """

    def __init__(self, model: keras.Model) -> None:
        recorded = record_calls(model)
        _check_unmasked(recorded.calls)
        self._inputs, self._outputs = recorded.inputs, recorded.outputs
        # Regularisation depends on weights alone, so that it is computed once.
        self._regularised = [one for one in model.trainable_variables if one.regularizer is not None]
        self._segments: list[_Segment] = []
        ends, wanted = Flow(recorded).best_ends(), {id(one) for one in tensors_in(recorded.outputs)}
        for start, end in reversed(list(itertools.pairwise([0, *ends]))):
            segment = _Segment(recorded.calls[start:end], wanted)
            wanted |= set(segment.reads)
            self._segments.insert(0, segment)

    @tf.autograph.experimental.do_not_convert
    def __call__(self, inputs: Any) -> tuple[Any, list[tf.Tensor]]:
        """Computes the outputs, and the losses that layers add.

        Args:
            inputs: Inputs of the model, in its structure.
        """
        known = {
            id(symbol): tf.cast(tensor, symbol.dtype)
            for symbol, tensor in zip(keras.tree.flatten(self._inputs), keras.tree.flatten(inputs), strict=True)
        }
        losses: list[tf.Tensor] = []
        for segment in self._segments:
            made, added = segment.run(
                [known[key] for key in segment.reads], recompute=segment is not self._segments[-1]
            )
            known |= zip(segment.makes, made, strict=True)
            losses += added
        outputs = replace_tensors(self._outputs, lambda symbol: known[id(symbol)])
        return outputs, losses + [one.regularizer(one.value) for one in self._regularised]


class _Segment(keras.layers.Layer):
    """Some of a model's calls.

    Args:
        calls: The calls.
        wanted: Tensors, by `id`, that later calls read or that the model returns.

    Attributes:
        reads: Tensors, by `id`, that the calls read and that they don't make.
        makes: Tensors, by `id`, that they make for others.
    """

    def __init__(self, calls: Sequence[ModelCall], wanted: set[int]) -> None:
        super().__init__(autocast=False, name="segment")
        made = {id(one) for call in calls for one in call.makes}
        self.reads = [key for key in dict.fromkeys(id(one) for call in calls for one in call.reads) if key not in made]
        self.makes = [id(one) for call in calls for one in call.makes if id(one) in wanted]
        self._parts = {id(one.operation): one.operation for one in calls}.values()
        self._layers_of_calls = [one for one in self._parts if isinstance(one, keras.Layer)]  # Keras tracks these
        self._calls = calls
        self.built = True

    def call(self, tensors: Sequence[tf.Tensor], training: bool | None = None) -> list[tf.Tensor]:
        """Runs the calls.

        Args:
            tensors: Values of `reads`.
            training: Whether layers act as in training.

        Returns:
            Values of `makes`.
        """
        known = dict(zip(self.reads, tensors, strict=True))
        for call in self._calls:
            known |= zip(map(id, call.makes), run_call(call, known, training=training), strict=True)
        return [known[key] for key in self.makes]

    def run(self, tensors: Sequence[tf.Tensor], *, recompute: bool) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Runs the calls in training mode, and updates the states of layers.

        Args:
            tensors: Values of `reads`.
            recompute: Whether gradients come from a second computation.

        Returns:
            Values of `makes`, and losses that layers add.
        """
        weights = self.trainable_variables
        states = [(one, tf.convert_to_tensor(one.value)) for one in self.non_trainable_variables]
        differentiable = [place for place, one in enumerate(tensors) if one.dtype.is_floating]
        first: list[tuple[list[tf.Tensor], list[tf.Tensor]]] = []

        def compute(*sources: tf.Tensor) -> list[tf.Tensor]:
            given = list(tensors)
            for place, source in zip(differentiable, sources, strict=False):
                given[place] = source
            mapping = [*zip(weights, sources[len(differentiable) :], strict=True), *states]
            with keras.StatelessScope(state_mapping=mapping, collect_losses=True) as scope:
                made = self(given, training=True)
            results = [one for one in made if one.dtype.is_floating] + scope.losses
            if not first:
                first.append((made, [scope.get_current_value(one) for one, _ in states]))
            return results

        sources = [tensors[place] for place in differentiable] + [tf.convert_to_tensor(one.value) for one in weights]
        results = (tf.recompute_grad(compute) if recompute else compute)(*sources)
        (made, after), *_ = first
        for (state, before), value in zip(states, after, strict=True):
            if value is not before:
                state.assign(value)
        remaining = iter(results)
        # Only floating-point tensors have gradients.
        return [next(remaining) if one.dtype.is_floating else one for one in made], list(remaining)


def _check_unmasked(calls: Sequence[ModelCall]) -> None:
    masked = [call for call in calls if any(getattr(one, "_keras_mask", None) is not None for one in call.makes)]
    if masked:
        name = masked[0].operation.name
        raise UserError(
            f"`recompute` can't run networks with masks, which {name} makes or passes on. Leave it out, or use "
            "`accumulate`, which saves memory too."
        )

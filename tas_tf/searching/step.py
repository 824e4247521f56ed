"""A step of the search: trains weights on one half of the data and the architecture's logits on the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from tas_tf.cost.expected_cost import ExpectedCost
from tas_tf.objectives.objective import Objective
from tas_tf.searching.settings import SearchSettings
from tas_tf.supernet.build import Supernet
from tas_tf.supernet.layers.statistics import running_momentum
from tas_tf.training.accumulation import over_parts
from tas_tf.training.optimizers import add_l2
from tas_tf.training.recompute import make_forward

#: Batches that a step computes gradients for, one after another: for the weights, and for the logits.
PASSES = 2


@dataclass(frozen=True)
class CostTarget:
    """Target of the cost, in shares of the unpruned network's cost.

    Attributes:
        budget: Largest cost of the shape that is found.
        tolerance: How far below the budget the cost may stay.
        weight: Weight of the cost loss relative to the cross-entropy.
        driver: Which cost is compared with the budget: that of the most probable shape (`argmax`, as in the paper), or
            the larger of that and the expected cost (`max`).
    """

    budget: float
    tolerance: float = SearchSettings.tolerance
    weight: float = SearchSettings.cost_weight
    driver: str = SearchSettings.cost_driver

    def loss(self, expected: tf.Tensor, argmax: tf.Tensor) -> tf.Tensor:
        """Returns `log E` if the cost is above the budget, `-log E` if it is too far below, else 0.

        Args:
            expected: Expected cost, a scalar.
            argmax: Exact cost of the most probable shape, a scalar.

        Reference:
            Dong and Yang 2019, equation 7, https://arxiv.org/abs/1905.09717
        """
        driving = tf.maximum(expected, argmax) if self.driver == "max" else argmax
        too_high = tf.cast(driving > self.budget, tf.float32)
        too_low = tf.cast(driving < self.budget - self.tolerance, tf.float32)
        return (too_high - too_low) * tf.math.log(expected)


class Searcher(keras.Model):
    """Trains a supernet's weights and its logits in turn.

    A batch is a pair `((images, labels), (images, labels))`: the first part is for the weights, the second for the
    logits.

    Args:
        supernet: Supernet to search.
        objective: What its outputs mean.
        expected_cost: Expected cost as a function of probabilities.
        target: Target of the cost.
        arch_l2: L2 penalty in the gradient of trained logits.
        parts: Parts of a batch that are computed one after another, see `over_parts`.
        recompute: Whether activations are computed again instead of being kept, see `Recomputing`.
        jit_compile: Whether to compile the two gradient functions with XLA.
    """

    def __init__(
        self,
        supernet: Supernet,
        objective: Objective,
        expected_cost: ExpectedCost,
        target: CostTarget,
        *,
        arch_l2: float = SearchSettings.arch_l2,
        parts: int = 1,
        recompute: bool = False,
        jit_compile: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.supernet = supernet
        self.target = target
        self.arch_l2 = arch_l2
        self._parts = parts
        self._forward = make_forward(supernet.body, recompute=recompute)
        self.expected_cost = expected_cost
        self._loss = objective.keras_loss()
        self._means = {
            name: keras.metrics.Mean(name=name)
            for name in ("weight_loss", "arch_loss", "cost_loss", "expected_cost", "argmax_cost")
        }
        self._progress = {
            part: objective.keras_metric(f"{part}_{objective.progress_name}") for part in ("weight", "arch")
        }
        self._weight_gradients, self._arch_gradients = self._compute_weight_gradients, self._compute_arch_gradients
        if jit_compile:
            # Only gradients are compiled: optimizers must communicate with other replicas, which XLA can't.
            self._weight_gradients = tf.function(self._weight_gradients, jit_compile=True)
            self._arch_gradients = tf.function(self._arch_gradients, jit_compile=True)
        self.built = True

    def compile(self, optimizer: keras.Optimizer, arch_optimizer: keras.Optimizer) -> None:
        """Sets and builds the optimizers of weights and logits. Call it inside the strategy's scope."""
        super().compile(optimizer=optimizer)
        self.arch_optimizer = arch_optimizer
        optimizer.build(self.supernet.weight_variables)
        arch_optimizer.build(self.supernet.architecture_variables)

    @property
    def optimizers(self) -> tuple[keras.Optimizer, ...]:
        """The optimizers of the weights and of the logits."""
        return self.optimizer, self.arch_optimizer

    @property
    def metrics(self) -> list:
        """Means over an epoch, which Keras resets."""
        return [*self._means.values(), *self._progress.values()]

    def call(self, images, training=None):
        """Runs the supernet on the sample of step 0."""
        return self.supernet(images, training=bool(training))

    def train_step(self, data):
        """Updates the weights on the first batch, then the logits on the second."""
        (images, labels), (more_images, more_labels) = data
        # Weights use even draws, logits odd ones. The optimizer's count is the same on all replicas.
        draw = 2 * tf.cast(self.optimizer.iterations, tf.int32)
        self.update_weights(images, labels, draw)
        self.update_logits(more_images, more_labels, draw + 1)
        return self.get_metrics_result()

    def update_weights(self, images: tf.Tensor, labels: tf.Tensor, draw: tf.Tensor) -> None:
        """Runs the first half of a step.

        Args:
            images: `[batch, ...]`.
            labels: Labels as the objective has them.
            draw: Number of the draw, a scalar.
        """

        def compute(images: tf.Tensor, labels: tf.Tensor) -> list[tf.Tensor]:
            loss, logits, gradients = self._weight_gradients(images, labels, draw)
            self._record("weight", loss, logits, labels)
            return gradients

        gradients = over_parts(compute, [images, labels], self._parts)
        self.optimizer.apply_gradients(zip(gradients, self.supernet.weight_variables, strict=True))

    def update_logits(self, images: tf.Tensor, labels: tf.Tensor, draw: tf.Tensor) -> None:
        """Runs the second half of a step; its arguments are those of `update_weights`."""

        def compute(images: tf.Tensor, labels: tf.Tensor) -> tuple[list[tf.Tensor], tuple[tf.Tensor, ...]]:
            loss, logits, costs, gradients = self._arch_gradients(images, labels, draw)
            self._record("arch", loss, logits, labels)
            return gradients, costs

        gradients, costs = over_parts(compute, [images, labels], self._parts)
        variables = self.supernet.architecture_variables
        gradients = add_l2(gradients, variables, self.arch_l2)
        self.arch_optimizer.apply_gradients(zip(gradients, variables, strict=True))
        for name, value in zip(("cost_loss", "expected_cost", "argmax_cost"), costs, strict=True):
            self._means[name].update_state(value)

    def _compute_weight_gradients(self, images, labels, draw):
        """Returns loss, logits and gradients of the weights; the architecture's logits get no gradient."""
        variables = self.supernet.weight_variables
        sample = tuple(map(tf.stop_gradient, self.supernet.gates(draw)))
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([variable.value for variable in variables])
            logits = self._run(images, sample)
            loss = self._loss(labels, logits)
        # A bias before batch normalisation has no effect, but must decay as in ordinary training.
        sources, none = [variable.value for variable in variables], tf.UnconnectedGradients.ZERO
        return loss, logits, tape.gradient(loss, sources, unconnected_gradients=none)

    def _compute_arch_gradients(self, images, labels, draw):
        """Returns loss, logits, costs and the architecture's gradients; running statistics stay unchanged."""
        variables = self.supernet.architecture_variables
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        with running_momentum(1.0), tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([variable.value for variable in variables])
            logits = self._run(images, self.supernet.gates(draw))
            loss = self._loss(labels, logits)
            costs = self.costs()
            # Gradients are summed over replicas, so the loss object divides by their number; so must the cost.
            total = loss + self.target.weight * costs[0] / replicas
        return loss, logits, costs, tape.gradient(total, [variable.value for variable in variables])

    def _run(self, images: tf.Tensor, sample: tuple[tf.Tensor, ...]) -> tf.Tensor:
        """Logits of a sample in training mode, as `Supernet` returns them."""
        logits, _ = self._forward([images, *sample])
        return tf.cast(logits, tf.float32)

    def costs(self) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns cost loss, expected cost and exact argmax cost; costs are shares of the unpruned network's."""
        widths, depths = self.supernet.gates.probabilities()
        expected = self.expected_cost(widths, depths)
        argmax = self.expected_cost(_one_hot(widths), _one_hot(depths))
        return self.target.loss(expected, argmax), expected, argmax

    def _record(self, name: str, loss, logits, labels) -> None:
        # Metrics average over replicas, but the loss object has already divided by their number.
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        self._means[f"{name}_loss"].update_state(loss * replicas)
        self._progress[name].update_state(labels, logits)


def _one_hot(probabilities: tf.Tensor) -> tf.Tensor:
    """Returns each row's most probable candidate as a one-hot distribution without a gradient."""
    return tf.one_hot(tf.argmax(probabilities, -1), probabilities.shape[-1])

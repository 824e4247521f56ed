"""The settings of a search, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tas_tf.errors import UserError
from tas_tf.searching.step import CostTarget
from tas_tf.supernet.initial_logits import START_KINDS

#: Which epoch's shape a search ends with.
KEPT_SHAPES = ("last", "best")


@dataclass(frozen=True)
class SearchSettings:
    """Settings of a search; the defaults are the paper's for CIFAR but for `arch_lr` and `cost_driver`.

    Attributes:
        epochs: Epochs over the smaller half of the data.
        warmup_epochs: Of these, epochs in which the rate of the weights rises.
        batch_size: Images in each of an iteration's two batches, over all replicas.
        lr: Highest learning rate of the weights.
        momentum: Nesterov momentum of the weights.
        l2: Penalty in the gradient of the weights.
        arch_lr: Learning rate of the logits; `None` makes them move by about 20 in all, within 1e-3 and 0.1.
        arch_betas: Adam's decay rates.
        arch_l2: Penalty in the gradient of the logits.
        temperature: At the first and the last epoch, along half a cosine.
        num_drawn: Widths drawn at once; `None` draws all.
        noise: Whether draws are perturbed by Gumbel noise.
        tolerance: How far below the budget a shape may stay, a share of the unpruned cost.
        cost_weight: Of the cost's loss.
        cost_driver: Whose cost is compared with the budget.
        split_share: Share of the training images that the weights get.
        init_logits: Where logits start: all alike, or at the budget.
        from_teacher: Starts the supernet from the teacher's weights.
        calibration_batches: Batches that running statistics are averaged over before a shape is scored.
        held_out_limit: Images that a shape is scored on at most.
        keep_shape: The last epoch's shape, or the best by held-out accuracy; all are within the budget.
        jit_compile: XLA for the gradients.
        seed: Of weights, logits and draws.
    """

    epochs: int = 600
    warmup_epochs: int = 0
    batch_size: int = 256
    lr: float = 0.1
    momentum: float = 0.9
    l2: float = 5e-4
    arch_lr: float | None = None
    arch_betas: tuple[float, float] = (0.5, 0.999)
    arch_l2: float = 1e-3
    temperature: tuple[float, float] = (5.0, 0.1)
    num_drawn: int | None = 2
    noise: bool = True
    tolerance: float = 0.05
    cost_weight: float = 2.0
    cost_driver: str = "max"
    split_share: float = 0.5
    init_logits: str = "uniform"
    from_teacher: bool = False
    calibration_batches: int = 5
    held_out_limit: int = 10_000
    keep_shape: str = "last"
    jit_compile: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.init_logits not in START_KINDS:
            raise UserError(f"`init_logits` must be one of {', '.join(START_KINDS)}. Received: {self.init_logits!r}.")
        if self.keep_shape not in KEPT_SHAPES:
            raise UserError(f"`keep_shape` must be one of {', '.join(KEPT_SHAPES)}. Received: {self.keep_shape!r}.")
        if not all(0 < temperature < math.inf for temperature in self.temperature):
            raise UserError(f"`temperature` must be above 0 throughout. Received: {self.temperature}.")
        if not 0 < self.split_share < 1:
            raise UserError(f"`split_share` must lie between 0 and 1. Received: {self.split_share}.")
        if not all(0 <= beta < 1 for beta in self.arch_betas):
            raise UserError(f"`arch_betas` must be from 0 up to 1, 1 excluded. Received: {self.arch_betas}.")
        self.target(1.0)

    def target(self, budget: float) -> CostTarget:
        """What the cost is pushed to, for a budget as a share of the unpruned cost."""
        return CostTarget(budget, self.tolerance, self.cost_weight, self.cost_driver)

    def arch_rate(self, steps: int) -> float:
        """Learning rate of the logits for so many steps: with few, a small one would hardly move them."""
        return self.arch_lr if self.arch_lr is not None else min(0.1, max(1e-3, 20 / steps))

"""Settings of a search."""

from __future__ import annotations

from dataclasses import dataclass

from tas_tf.settings import other_default, setting
from tas_tf.supernet.settings import DrawSettings
from tas_tf.training.settings import LogitOptimisation, Optimisation, WarmUp


@dataclass(frozen=True, kw_only=True)
class SearchSettings(Optimisation, WarmUp, LogitOptimisation, DrawSettings):
    """Settings of a search; except `arch_lr` and `cost_driver`, the defaults are the paper's for CIFAR.

    An epoch is one pass over the smaller half of the training images.

    Example:
        >>> import tas_tf
        >>> tas_tf.SearchSettings(epochs=20, batch_size=64, from_teacher=True).epochs
        20
    """

    epochs: int = other_default(Optimisation, "epochs", 600)
    warmup_epochs: int = other_default(WarmUp, "warmup_epochs", 0)
    arch_lr: float | None = setting(
        None,
        "Learning rate of the architecture's logits; by default 20 / steps, clipped to the range 1e-3 to 0.1.",
        at_least=0,
    )
    temperature_start: float = setting(5.0, "Temperature of the draws in the first epoch.", above=0)
    temperature_end: float = setting(0.1, "Temperature of the draws in the last epoch.", above=0)
    tolerance: float = setting(
        0.05,
        "How far below the budget the cost may stay, as a share of the unpruned network's cost.",
        at_least=0,
        below=1,
    )
    cost_weight: float = setting(2.0, "Weight of the cost loss.", at_least=0)
    cost_driver: str = setting(
        "max",
        "Which cost is compared with the budget: that of the most probable shape (argmax, as in the paper), or the "
        "larger of that and the expected cost (max).",
        choices=("max", "argmax"),
    )
    split_share: float = setting(
        0.5, "Share of the training images for the weights; the logits get the rest.", above=0, below=1
    )
    init_logits: str = setting(
        "uniform",
        "Initial logits: all equal (uniform), or chosen so that the expected cost equals the budget (budget).",
        choices=("uniform", "budget"),
    )
    from_teacher: bool = setting(False, "Starts the supernet from the teacher's weights.")
    calibration_batches: int = setting(
        5, "Batches over which BN statistics are averaged before a shape is scored.", at_least=1
    )
    held_out_limit: int = setting(10_000, "Largest number of held-out images used to score a shape.", at_least=1)
    keep_shape: str = setting(
        "last",
        "Which epoch's shape to keep: the last, or the one with the best held-out accuracy (best).",
        choices=("last", "best"),
    )
    jit_compile: bool = setting(False, "Compiles the gradients of the search with XLA (one device only).")

    @property
    def all_epochs(self) -> int:
        """Total number of epochs, including the warm-up."""
        return self.warmup_epochs + self.epochs

    def arch_rate(self, steps: int) -> float:
        """Returns the learning rate of the logits; by default, fewer steps get a higher one to move logits enough."""
        return self.arch_lr if self.arch_lr is not None else min(0.1, max(1e-3, 20 / steps))

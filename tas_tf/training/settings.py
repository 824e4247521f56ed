"""Settings that all trainings share, and settings of ordinary training."""

from __future__ import annotations

from dataclasses import dataclass

from tas_tf.settings import Seeded, Settings, setting


@dataclass(frozen=True, kw_only=True)
class Optimisation(Seeded):
    """Settings of SGD with Nesterov momentum and cosine decay to 0; the defaults are the paper's for CIFAR."""

    epochs: int = setting(300, "Epochs after the warm-up.", at_least=1)
    batch_size: int = setting(256, "Images in a batch, over all devices.", at_least=1)
    lr: float = setting(0.1, "Highest learning rate of the weights.", at_least=0)
    accumulate: int = setting(
        1,
        "Equal parts in which a batch goes through the network, one after another, so that memory holds one part's "
        "activations. Batch normalisation sees each part on its own.",
        at_least=1,
        before=1,
    )
    recompute: bool = setting(
        False,
        "Keeps few activations for the backward pass and computes the others again: about a third more computation "
        "and much less memory. Results are the same. Fine-tuning for 8 bits doesn't support it.",
        recorded=False,
    )
    momentum: float = setting(0.9, "Nesterov momentum of the weights.", at_least=0, below=1)
    l2: float = setting(5e-4, "L2 penalty in the gradient of the weights.", at_least=0)


@dataclass(frozen=True, kw_only=True)
class LogitOptimisation(Settings):
    """Settings of Adam for the architecture's logits, as in the paper."""

    arch_betas: tuple[float, float] = setting((0.5, 0.999), "Adam's decay rates for the logits.", at_least=0, below=1)
    arch_l2: float = setting(1e-3, "L2 penalty in the gradient of the logits.", at_least=0)


@dataclass(frozen=True, kw_only=True)
class WarmUp(Settings):
    """Settings of the warm-up."""

    warmup_epochs: int = setting(5, "Additional epochs at the start while the learning rate rises.", at_least=0)


@dataclass(frozen=True, kw_only=True)
class Distillation(Settings):
    """Settings of learning from a teacher, if there is one."""

    alpha: float = setting(
        0.9, "Weight of the distillation loss; the loss on the labels gets the rest.", at_least=0, at_most=1
    )
    temperature: float = setting(4.0, "Softmax temperature of the distillation loss.", above=0)


@dataclass(frozen=True, kw_only=True)
class ChangingDistillation(Distillation):
    """Settings of learning from a teacher whose weight may change."""

    alpha_end: float | None = setting(
        None,
        "Weight of the distillation loss at the end, if it changes during the training, along half a cosine. With 0, a "
        "student can surpass its teacher.",
        at_least=0,
        at_most=1,
    )
    views: int = setting(
        0,
        "Epochs in which images are augmented anew and the teacher is asked about them. Later epochs repeat these in "
        "turns, with the logits kept in memory, and take less time. 0: all epochs, as always if the data can't be read "
        "again in the same order.",
        at_least=0,
    )


@dataclass(frozen=True, kw_only=True)
class TrainSettings(Optimisation, WarmUp, ChangingDistillation):
    """Settings of ordinary training, of a teacher or a student.

    Example:
        >>> import tas_tf
        >>> tas_tf.TrainSettings(epochs=20, batch_size=64).epochs
        20
    """

    @property
    def all_epochs(self) -> int:
        """Total number of epochs, including the warm-up."""
        return self.warmup_epochs + self.epochs

"""Settings of quantisation-aware fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass

from tas_tf.errors import UserError
from tas_tf.settings import other_default
from tas_tf.training.settings import Distillation, Optimisation


@dataclass(frozen=True, kw_only=True)
class FineTuneSettings(Optimisation, Distillation):
    """Settings of fine-tuning. There is no warm-up: the learning rate falls from the first step on."""

    epochs: int = other_default(Optimisation, "epochs", 10)
    lr: float = other_default(Optimisation, "lr", 0.01)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.recompute:
            raise UserError(
                "`recompute` isn't supported by fine-tuning for 8 bits. Leave it out; `accumulate` saves memory too."
            )

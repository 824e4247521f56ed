"""Settings of a shape that is made without a search."""

from __future__ import annotations

from dataclasses import dataclass

from tas_tf.baselines.shapes import BASELINE_KINDS
from tas_tf.errors import UserError
from tas_tf.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class BaselineSettings(Settings):
    """Settings of a shape that is made without a search."""

    kind: str | None = setting(None, "Which shape to write.", choices=BASELINE_KINDS)
    random_shapes: int = setting(
        1, "Number of random shapes; if there are several, each is trained briefly and the best is kept.", at_least=1
    )
    random_epochs: int = setting(5, "Epochs to train each random shape if there are several.", at_least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind not in (None, "random") and self.random_shapes > 1:
            raise UserError(f"`random_shapes` goes with `kind`=random. Received: `kind`={self.kind}.")

"""Settings of how channels are ranked."""

from __future__ import annotations

from dataclasses import dataclass

from tas_tf.importance.criteria import CRITERIA
from tas_tf.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class ImportanceSettings(Settings):
    """Settings of how the channels of a trained network are ranked, so that the best ones are kept."""

    importance: str = setting(
        "l1",
        "How the channels of a trained network are ranked before any are dropped: by their filters (l1, fpgm), by how "
        "much logits (lfh) or loss (taylor) react to them, by their batch normalisation (bn_scale), or not at all "
        "(none, as in the paper).",
        choices=(*CRITERIA, "none"),
    )
    importance_images: int = setting(1000, "Number of training images for lfh and taylor.", at_least=1)

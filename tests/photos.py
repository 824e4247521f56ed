"""Small photos whose values, labels and masks are known, for commands on other tasks than classes."""

from __future__ import annotations

import numpy as np

#: Numbers of images.
TRAIN, TEST = 160, 60
CLASSES = 3


class Photos:
    """Grey images of 8x8, whose left and right halves have a brightness each, and what is known of them."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.halves = rng.uniform(20, 235, (TRAIN + TEST, 2))
        whole = np.repeat(self.halves, 4, axis=1)[:, np.newaxis] + rng.normal(0, 8, (TRAIN + TEST, 8, 8))
        self.pixels = whole.clip(0, 255).astype(np.uint8)
        self.values = np.round(self.halves / 25, 3)
        self.tags = (self.halves > 128).astype(int)
        self.masks = (self.pixels // 86).astype(np.uint8)

    def network_input(self) -> np.ndarray:
        return (self.pixels[..., np.newaxis] / 255).astype(np.float32)


def flags_for_photos(tiny_flags: list[str]) -> list[str]:
    """Flags of a short run; all test images count."""
    left_out = ("--train_limit", "--preprocess", "--test_limit")
    own = ["--image_size=8", "--train_limit=120", "--preprocess=scale_0_1", "--formats=fp32,int8", "--lr=0.01"]
    return [*(flag for flag in tiny_flags if not flag.startswith(left_out)), *own, "--max_accuracy_drop=0.5"]

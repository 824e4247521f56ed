"""Results of a network: a row of TensorBoard's tab HParams, with the scalars that it compares, texts and images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api


@dataclass(frozen=True)
class Result:
    """What is known about a network in the end.

    Attributes:
        settings: What the network was made with, by name: numbers, booleans and texts.
        scalars: Measurements by tag.
        texts: Texts in Markdown by tag.
        images: Images by tag, uint8 `[images, height, width, 3 or 4]`.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    scalars: Mapping[str, float] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    images: Mapping[str, np.ndarray] = field(default_factory=dict)


def write_result(folder: str | Path, result: Result) -> None:
    """Writes the result of a network.

    Args:
        folder: Folder of the event file, which must be empty: TensorBoard would show those in it as well.
        result: What is known about the network.
    """
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default(step=0):
        api.hparams({name: _plain(value) for name, value in result.settings.items()})
        for tag, value in result.scalars.items():
            tf.summary.scalar(tag, value)
        for tag, text in result.texts.items():
            tf.summary.text(tag, text)
        for tag, images in result.images.items():
            tf.summary.image(tag, images, max_outputs=len(images))
    writer.close()


def _plain(value: Any) -> bool | int | float | str:
    """A setting as TensorBoard takes it.

    >>> [_plain(value) for value in (True, 0.5, None, (0.25, 0.5), "macs:0.5")]
    [True, 0.5, '', '0.25,0.5', 'macs:0.5']
    """
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return value if isinstance(value, bool | int | float) else str(value)

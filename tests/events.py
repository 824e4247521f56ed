"""Reads event files as TensorBoard does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2


def accumulated(folder: Path) -> EventAccumulator:
    """All events of a folder."""
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    return events.Reload()


def read_events(folder: Path) -> dict[str, list[tuple[int, np.ndarray]]]:
    """Steps and values by tag: numbers, texts, and images as width, height and PNG."""
    events = accumulated(folder)
    return {
        tag: [(event.step, tf.make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
    }


def read_settings(folder: Path) -> dict[str, bool | float | str]:
    """The settings of the only row of the tab HParams."""
    events = accumulated(folder)
    (tag,) = [tag for tag in events.Tags()["tensors"] if tag.startswith("_hparams_/session_start")]
    content = events.SummaryMetadata(tag).plugin_data.content
    start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    return {name: getattr(one, one.WhichOneof("kind")) for name, one in start.hparams.items()}

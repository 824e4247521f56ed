"""Settings of a budget in time: what is measured, and where."""

from __future__ import annotations

from dataclasses import dataclass

from tas_tf.deploy.converters import CONVERTERS
from tas_tf.deploy.settings import InterpreterSettings
from tas_tf.settings import setting


@dataclass(frozen=True, kw_only=True)
class LatencySettings(InterpreterSettings):
    """What a budget in time refers to.

    Example:
        >>> import tas_tf
        >>> tas_tf.LatencySettings(file_format="int8")
        LatencySettings(threads=1, file_format='int8', table=None)
    """

    file_format: str = setting(
        "fp32",
        "Format of the .tflite file whose latency a budget in time limits; it must be among the formats to write.",
        choices=tuple(CONVERTERS),
    )
    table: str | None = setting(
        None,
        "File of latencies that were measured on another device, which a budget in time refers to; by default this "
        "machine is measured.",
        recorded=False,
    )

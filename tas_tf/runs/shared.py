"""What a run shares with the runs inside its folder, and how it was made."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
from rich.console import Console

from tas_tf.data.own_data import Script
from tas_tf.data.run_data import RunData
from tas_tf.runs.run import Run
from tas_tf.student.meter import Meter

#: Called when a step begins, with the workspace and the dotted names of the settings that the step uses.
KeepSettings = Callable[[Any, Collection[str]], None]
#: Takes a text and a section of the config; replaces arguments in backticks by the names that the user knows.
Wording = Callable[[str, str | None], str]


@dataclass(frozen=True)
class Origin:
    """How a run was made, for its report.

    Attributes:
        settings: Values as the user gave them, by name.
        command: Command that makes the run again.
    """

    settings: Mapping[str, str] = field(default_factory=dict)
    command: str = ""


@dataclass
class Shared:
    """What a run shares with the runs inside its folder. Equal settings share data, networks and measurements.

    Attributes:
        console: Where messages go.
        keep_settings: Keeps the settings of a run, see `KeepSettings`.
        wording: Puts messages into the user's terms, see `Wording`.
        made_by: Returns how a run was made.
        tasks: Data, by its settings.
        scripts: Python files that make data, by the name of the data set; `None` for other data.
        loaded: The user's networks as they are in their files, by path.
        networks: Networks, by their settings.
        meters: What measures shapes, by what it depends on.
        deployable: What the check of each network that can be exported depends on.
        in_order: Settings of networks and data whose classes have been found to be in the order of the outputs.
        said: Lines about files that the user has read.
        started: When the command started, by `time.monotonic`.
    """

    console: Console
    keep_settings: KeepSettings = lambda workspace, names: None
    wording: Wording = lambda text, section: text
    made_by: Callable[[Run], Origin] = lambda run: Origin()
    tasks: dict[Any, RunData] = field(default_factory=dict)
    scripts: dict[str, Script | None] = field(default_factory=dict)
    loaded: dict[Path, keras.Model] = field(default_factory=dict)
    networks: dict[Any, keras.Model] = field(default_factory=dict)
    meters: dict[Any, Meter | None] = field(default_factory=dict)
    deployable: set[Any] = field(default_factory=set)
    in_order: set[Any] = field(default_factory=set)
    said: set[str] = field(default_factory=set)
    started: float = field(default_factory=time.monotonic)

    def lap(self) -> float:
        """Seconds since the start, or since the last call."""
        now = time.monotonic()
        passed, self.started = now - self.started, now
        return passed

"""A lap of a race, a brief training of one shape, and its record in a folder."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tas_tf.errors import UserError
from tas_tf.files import read_arrays, read_checked, write_arrays, write_checked
from tas_tf.proposals.shortlist import Proposal
from tas_tf.training.checkpoint import Saving


@dataclass(frozen=True)
class Lap:
    """A brief training of one shape.

    Attributes:
        proposal: The shape.
        round: Number of the round, from 1.
        rate_factor: Factor of the learning rate.
        steps: Steps of the training.
        loss: Loss on held-out training images, which decides who goes on.
        metric: Name of the score that counts for the objective, such as `accuracy`.
        score: That score on the same images.
        seconds: Duration of training and scoring.
        asked: Seconds in which the teacher was asked about the images of the round, before its first lap.
    """

    proposal: Proposal
    round: int
    rate_factor: float
    steps: int
    loss: float
    metric: str
    score: float | None
    seconds: float
    asked: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The lap in JSON's types, with the name of the proposal; a loss that isn't finite becomes `None`."""
        return {**vars(self), "proposal": self.proposal.name, "loss": self.loss if math.isfinite(self.loss) else None}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], proposal: Proposal) -> Lap:
        """The inverse of `to_json`, also for laps of earlier versions.

        Raises:
            KeyError: There is no loss.
            TypeError: A value is missing or of another type.
        """
        if "accuracy" in data:
            data = {"metric": "accuracy", "score": data["accuracy"], **data}
            data = {name: value for name, value in data.items() if name != "accuracy"}
        lap = cls(**{**data, "proposal": proposal, "loss": math.inf if data["loss"] is None else data["loss"]})
        numbers = (lap.round, lap.rate_factor, lap.steps, lap.loss, lap.score or 0, lap.seconds, lap.asked)
        if not all(isinstance(one, int | float) for one in numbers):
            raise TypeError(f"Not a lap: {data}.")
        return lap


class LapRecords:
    """Keeps laps in a folder, so that a resumed race doesn't run them again.

    Args:
        saving: The folder, and how often unfinished laps are saved; `None` keeps nothing.
    """

    def __init__(self, saving: Saving | None) -> None:
        self._saving = saving

    def read(self, proposal: Proposal, number: int, factor: float) -> tuple[Lap, list[np.ndarray]] | None:
        """A finished lap and the weights at its end; `None` if the lap has to be run.

        That is so, with a warning, if the record is damaged: the lap comes to the same end.

        Args:
            proposal: The shape.
            number: Number of the round.
            factor: Factor of the learning rate.
        """
        path = self._path(proposal, number, factor)
        if path is None or not path.with_suffix(".json").exists():
            return None
        try:
            record = read_checked(path.with_suffix(".json"))
            # A shape that another machine proposes under the same name may be another one.
            if record.get("shape") != proposal.shape.to_json():
                return None
            return Lap.from_json(record["lap"], proposal), read_arrays(path.with_suffix(".npz"))
        except (UserError, KeyError, TypeError) as error:
            reason = error if isinstance(error, UserError) else f"{path.with_suffix('.json')} is damaged."
            warnings.warn(f"{reason} The lap of {proposal.name} in round {number} is run again.", stacklevel=4)
            return None

    def training(self, proposal: Proposal, number: int, factor: float) -> Saving | None:
        """Where the training of an unfinished lap is saved."""
        path = self._path(proposal, number, factor)
        if path is None:
            return None
        shape = json.dumps(proposal.shape.to_json(), sort_keys=True)
        return self._saving.within(f"{path.name}_{hashlib.sha256(shape.encode()).hexdigest()[:8]}")

    def write(self, lap: Lap, weights: list[np.ndarray]) -> None:
        """Keeps a finished lap and the weights at its end, in place of its training.

        Raises:
            OSError: The disk is full.
        """
        key = (lap.proposal, lap.round, lap.rate_factor)
        path = self._path(*key)
        if path is None:
            return
        write_arrays(path.with_suffix(".npz"), weights)
        # Last: it says that the lap is complete.
        write_checked(path.with_suffix(".json"), {"lap": lap.to_json(), "shape": lap.proposal.shape.to_json()})
        shutil.rmtree(self.training(*key).folder, ignore_errors=True)

    def _path(self, proposal: Proposal, number: int, factor: float) -> Path | None:
        """Files of a lap, without their suffixes."""
        if self._saving is None:
            return None
        name = re.sub("[^a-z0-9]+", "_", proposal.name)
        return self._saving.folder / f"round{number}_{name}_{factor:g}".replace(".", "p")

"""Budgets and their text form: `macs:0.5`, `macs:50%`, `macs:40M`, `params:200k`, `bytes:400k`, `latency:2ms`."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from tas_tf.cost.cost_model import COST_KINDS, MILLISECOND
from tas_tf.errors import UserError

_PATTERN = re.compile(r"^(?P<kind>[A-Za-z]+):(?P<number>\d+(\.\d*)?|\.\d+)(?P<unit>k|M|G|us|ms|s|%|)$")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
_TIMES = {"us": MILLISECOND // 1000, "ms": MILLISECOND, "s": 1000 * MILLISECOND}


@dataclass(frozen=True)
class Budget:
    """The highest cost that a network may have.

    Attributes:
        kind: Kind of cost, one of `tas_tf.cost.cost_model.COST_KINDS`.
        value: A share of the unpruned network's cost, or a count; of femtoseconds for the kind `latency`.
        is_share: Whether `value` is a share.

    Example:
        >>> import tas_tf
        >>> tas_tf.Budget.parse("macs:40M")
        Budget(kind='macs', value=40000000.0, is_share=False)
    """

    kind: str
    value: float
    is_share: bool

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Reads `kind:value`. A value up to 1 without a unit is a share, as is one up to 100%.

        The units k, M and G are decimal. The kind may be written in capitals.

        Latencies that aren't shares have one of the units us, ms and s.

        >>> Budget.parse("macs:0.5"), Budget.parse("params:40k").limit(10**6)
        (Budget(kind='macs', value=0.5, is_share=True), 40000)

        Raises:
            UserError: If the text isn't a valid budget.
        """
        if not isinstance(text, str):
            raise UserError(f"`budget` must be a string such as 'macs:0.5'. Received: {text!r}.")
        match = _PATTERN.match(text.strip())
        kind = "" if match is None else match["kind"].lower()
        if match is None or kind not in COST_KINDS:
            raise UserError(
                f"`budget` must be KIND:VALUE, such as macs:0.5 or macs:50% (half the cost), macs:40M or "
                f"latency:2ms. KIND is one of {', '.join(COST_KINDS)}. Received: {text!r}."
            )
        in_percent, is_latency = match["unit"] == "%", kind == "latency"
        number = float(match["number"] + ("e-2" if in_percent else ""))
        if number <= 0:
            raise UserError(f"`budget` must be above 0. Received: {text!r}.")
        units = _TIMES if is_latency else _UNITS
        is_share = (in_percent or not match["unit"]) and number <= 1
        if not is_share and match["unit"] not in units:
            expected = "2ms or 800us" if is_latency else f"40{'M' if kind == 'macs' else 'k'}"
            raise UserError(
                f"`budget` must be a share up to 1, such as {kind}:0.5, or an amount such as "
                f"{kind}:{expected}. Received: {text!r}."
            )
        if not is_share and not match["unit"] and "." in match["number"]:
            raise UserError(
                f"`budget` must be a share up to 1, such as {kind}:0.5, or a count: a whole number, or a "
                f"number with k, M or G. Received: {text!r}."
            )
        if not is_share and number * units[match["unit"]] < 1:
            raise UserError(f"`budget` must be a share, or a count of at least 1. Received: {text!r}.")
        return cls(kind, number if is_share else float(round(number * units[match["unit"]])), is_share)

    def limit(self, full: int) -> int:
        """The budget as a whole number.

        Args:
            full: Cost of the unpruned network.
        """
        # The small addition makes up for rounding: in binary, 0.29 is less than 29 hundredths.
        return int((self.value * full if self.is_share else self.value) + 1e-6)

    def __str__(self) -> str:
        # `parse` doesn't read scientific notation such as 5e-05.
        if self.is_share:
            return f"{self.kind}:{np.format_float_positional(self.value, trim='-')}"
        if self.kind == "latency":
            return f"latency:{np.format_float_positional(self.value / _TIMES['us'], trim='-')}us"
        return f"{self.kind}:{self.limit(0)}"

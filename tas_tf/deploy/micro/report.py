"""What a network needs on a microcontroller."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Port:
    """An input or output.

    Attributes:
        name: Its name.
        shape: Its shape, `(1, ...)`.
        type: Type of its integers, such as `int8`.
        scale: The step between two integers; 0 if the integers are the numbers themselves.
        zero_point: The integer that stands for 0.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    scale: float
    zero_point: int


@dataclass(frozen=True)
class MicroReport:
    """What `export_c_array` wrote, and what the network needs.

    The arena is the runtime's working memory. Its size holds for reference kernels and pointers of 64 bits; controllers
    have smaller ones. Optimised kernels, such as CMSIS-NN's, may ask for more. The runtime's own code isn't part of any
    number.

    Attributes:
        name: Beginning of all names in the source.
        files: The header and the source.
        flash: Bytes of the array.
        planned: Bytes of the arena for tensors, which share memory, and for what kernels need while they run.
        kept: Bytes of the arena that stay in use: descriptions of tensors and operators, and scales of channels.
        not_measured: Why `planned` and `kept` weren't measured nor outputs compared with LiteRT's, so that `kept` is
            estimated, rather too large; empty if they were.
        operators: Methods of a `MicroMutableOpResolver` that register the operators.
        inputs: The inputs.
        outputs: The outputs.

    Example:
        ```python
        print(tas_tf.export_c_array("student.tflite", "student.cc"))
        ```
    """

    name: str
    files: tuple[Path, Path]
    flash: int
    planned: int
    kept: int
    not_measured: str
    operators: tuple[str, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    @property
    def is_measured(self) -> bool:
        """Whether `planned` and `kept` were measured, and outputs compared with LiteRT's."""
        return not self.not_measured

    @property
    def arena(self) -> int:
        """Bytes of the arena."""
        return self.planned + self.kept

    def to_json(self) -> dict[str, Any]:
        """The numbers, and the operators."""
        return {
            **{"flash": self.flash, "arena": self.arena, "planned": self.planned, "kept": self.kept},
            **{"is_measured": self.is_measured, "operators": list(self.operators)},
        }

    @property
    def summary(self) -> str:
        """The numbers in a line."""
        how = "measured" if self.is_measured else f"partly estimated; {self.not_measured}"
        return (
            f"{self.flash:,} bytes of flash, an arena of {self.arena:,} bytes ({how}), of which {self.planned:,} for "
            f"tensors; {len(self.operators)} kinds of operator"
        )

    def __str__(self) -> str:
        return f"{self.files[1]}: {self.summary}: {', '.join(self.operators)}"

"""Settings of an export: which files are written, and how they are checked and timed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from tas_tf.errors import UserError
from tas_tf.settings import Settings, setting

#: Names of the formats that can be written.
FORMATS = ("saved_model", "fp32", "fp16", "dynamic", "int8", "qat_int8")
#: Those that compute in integers throughout and need calibration images.
INTEGER_FORMATS = ("int8", "qat_int8")


def format_to_time(wanted: str, there: Collection[str]) -> str | None:
    """The format whose files tell the latency of a format: itself, or one with the same operators.

    Args:
        wanted: Name of the format.
        there: Formats of the files that exist.

    Returns:
        The name of the format, `None` if there is no such file.

    >>> format_to_time("qat_int8", ["fp32", "int8"])
    'int8'
    """
    alike = INTEGER_FORMATS if wanted in INTEGER_FORMATS else ()
    return next((one for one in (wanted, *alike) if one in there), None)


@dataclass(frozen=True, kw_only=True)
class InterpreterSettings(Settings):
    """How `.tflite` files run."""

    threads: int = setting(1, "Threads of the TFLite interpreter; a SavedModel uses TensorFlow's threads.", at_least=1)


@dataclass(frozen=True, kw_only=True)
class Checks(InterpreterSettings):
    """How files are checked and timed."""

    max_difference: float | None = setting(
        None,
        "Largest difference from the Keras model's outputs, as a share of the largest output, in formats that don't "
        "round to 8 bits; the default depends on the format.",
        at_least=0,
    )
    max_accuracy_drop: float = setting(
        0.02,
        "How much of the Keras model's test accuracy, or another score that counts, a student's file may lose, 0 to 1.",
        at_least=0,
        at_most=1,
    )
    rounds: int = setting(100, "Timed calls of each file with one image; the files take turns.", at_least=1)
    warmup: int = setting(10, "Untimed calls before the timed ones.", at_least=0)


@dataclass(frozen=True, kw_only=True)
class ExportSettings(Checks):
    """Which files are written, and how they are checked and timed."""

    formats: tuple[str, ...] = setting(
        ("saved_model", "fp32"),
        "Files to write: saved_model, and the .tflite files fp32, fp16, dynamic (int8 weights), int8 (calibrated), "
        "qat_int8 (fine-tuned for 8 bits).",
        choices=FORMATS,
    )
    preprocessing_inside: bool = setting(
        False, "Puts preprocessing into the files, which then take pixels from 0 to 255."
    )
    test_limit: int | None = setting(
        None,
        "Largest number of test images used to score the files; by default all, or 5,000 of data that is streamed.",
        at_least=1,
    )
    calibration_images: int = setting(
        200, "Training images used to find the activation ranges of int8 formats.", at_least=1
    )

    c_array: bool = setting(
        False,
        "Also writes the student's int8 and qat_int8 files as C++ arrays for microcontrollers, .cc and .h, with their "
        "operators and the memory that they need.",
        before=False,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.formats:
            raise UserError(f"`formats` must name some of {', '.join(FORMATS)}. Received none.")
        if self.c_array and not {*self.formats} & {*INTEGER_FORMATS}:
            raise UserError(
                f"`c_array` needs a format of integers among `formats`. Expected {' or '.join(INTEGER_FORMATS)}. "
                f"Received: {', '.join(self.formats)}."
            )

    @property
    def checks(self) -> Checks:
        """How files are checked and timed."""
        return Checks(
            max_difference=self.max_difference,
            max_accuracy_drop=self.max_accuracy_drop,
            threads=self.threads,
            rounds=self.rounds,
            warmup=self.warmup,
        )

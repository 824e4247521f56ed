"""The table of commands: where each is, what it does and which flags it uses. It loads no TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command.

    Attributes:
        name: What a user of the console command types after `tas-tf`.
        module: Module of the command, inside `tas_tf` in an installed package, else at the top level.
        summary: What the command does, in a few words.
        flags: Groups of flags that the command uses, and single flags of other groups.
        takes_model: Whether an argument that isn't a flag is the network.
        takes_more: Name of the list flag, if any, that takes the arguments that aren't flags too.
    """

    name: str
    module: str
    summary: str
    flags: tuple[str, ...]
    takes_model: bool = False
    takes_more: str | None = None


_RUN = ("Network", "Data", "Run")
_SPACE = ("axes", "width_divisor", "couple_trunk", "search_dense")
_RANKING = ("importance", "importance_images")
_BUDGET = ("budget", "Latency", "threads")
_STEP = ("batch_size", "lr", "momentum", "l2")

#: All commands by name, in the order of the help.
COMMANDS = {
    command.name: command
    for command in (
        Command(
            name="describe",
            module="trainers.describe",
            summary="show which parts of a network can shrink, which can't and why, and its cost",
            flags=(
                "Network",
                "What is searched",
                "dataset",
                "data_dir",
                "features",
                "label_columns",
                "test_share",
                "preprocess",
                "preprocessing_inside",
                *_BUDGET,
                "json",
            ),
            takes_model=True,
        ),
        Command(
            name="pipeline",
            module="trainers.pipeline",
            summary="run all steps: teacher, search, student, rivals, export and report",
            flags=(
                *(*_RUN, "What is searched", "Training", "Initial weights", "Recipe", "Latency", "Search"),
                *("Distillation", "Rivals"),
                *("Export", "Quantisation", "random_shapes", "random_epochs", "dry_run", "json"),
            ),
            takes_model=True,
        ),
        Command(
            name="teacher",
            module="trainers.teacher",
            summary="train the network to make smaller, or take over a trained one",
            flags=(*_RUN, "Training", *_SPACE, "dry_run"),
        ),
        Command(
            name="search",
            module="trainers.search",
            summary="find widths and depths within a budget, by a race or a search",
            flags=(
                *(*_RUN, *_SPACE, *_STEP, *_RANKING, "search_from_teacher", "Recipe", "Latency", "Search"),
                *("student_lr", "kd", "kd_alpha", "kd_alpha_end", "kd_temperature", "preprocessing_inside", "dry_run"),
            ),
        ),
        Command(
            name="baseline",
            module="trainers.baseline",
            summary="make a shape without a search, for comparison",
            flags=(
                *(*_RUN, *_SPACE, *_STEP, "Baseline"),
                *(
                    *_BUDGET,
                    "tolerance",
                    "split_share",
                    "held_out_limit",
                    "student_lr",
                    "preprocessing_inside",
                ),
            ),
        ),
        Command(
            name="distill",
            module="trainers.distill",
            summary="train the student, a network of the shape found",
            flags=(
                *(*_RUN, "What is searched", *_STEP, *_RANKING, "inherit", "Distillation"),
                *("recipe", *_BUDGET, "dry_run"),
            ),
        ),
        Command(
            name="export",
            module="export.student",
            summary="write, check and time SavedModel and TFLite files",
            flags=(
                *(*_RUN, "shape", "Export", "Quantisation"),
                *("batch_size", "momentum", "l2", "kd", "kd_alpha", "kd_temperature", "json"),
            ),
        ),
        Command(
            name="probe",
            module="trainers.probe",
            summary="write networks to time on another device, for a budget in time",
            flags=(*_RUN, *_SPACE, "Latency", "threads", "preprocessing_inside"),
        ),
        Command(
            name="report",
            module="trainers.report",
            summary="report on a run, or compare runs",
            flags=("run_dir", "teacher_from", "shape", "compare", "page", "json"),
            takes_more="compare",
        ),
    )
}


def command_of(module: ModuleType) -> Command | None:
    """The command whose module this is, also if Python runs it as `__main__`; `None` if it is no command's."""
    path = Path(getattr(module, "__file__", None) or "none")  # code given to `python -c` has no file
    name = f"{path.parent.name}.{path.stem}"
    return next((command for command in COMMANDS.values() if command.module == name), None)

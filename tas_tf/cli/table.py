"""The table of flags: which setting each flag sets and which commands use it. The rest comes from the settings."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tas_tf.cli.commands import Command
from tas_tf.cost.budget import Budget
from tas_tf.data.settings import script_file
from tas_tf.errors import UserError
from tas_tf.recipes import RECIPES
from tas_tf.runs.config import RunConfig
from tas_tf.settings import Described, Settings, describe_settings, setting


@dataclass(frozen=True, kw_only=True)
class CallSettings(Settings):
    """Settings of one call of a command rather than of the run."""

    dry_run: bool = setting(False, "Shows what would run, with its cost, time and memory, and stops.")
    compare: tuple[str, ...] = setting(
        (), "Run folders to compare in one table; folders of the same name count as seeds of one row."
    )
    page: str | None = setting(None, "HTML page to write of runs compared by --compare, such as comparison.html.")
    json: bool = setting(False, "Prints the results to stdout as JSON, and everything else to stderr.")


@dataclass(frozen=True)
class Option:
    """A flag.

    Attributes:
        flag: Name of the flag.
        targets: Settings that the flag sets, by dotted name, such as `student.epochs`. Settings of the run itself have
            no dot.
        group: Heading in the help.
        phase: Section of the flag, if flags of several sections share one help text.
        overrides: A more general flag for the same setting, which this flag overrides if it is given.
        kept: Whether the flagfile of a run keeps the flag. Flags for a single call and for folders aren't kept.
    """

    flag: str
    targets: tuple[str, ...]
    group: str
    phase: str = ""
    overrides: str = ""
    kept: bool = True


def _rows() -> Iterator[Option]:
    def group(name: str, section: str, *flags: str | tuple[str, str], **details: Any) -> Iterator[Option]:
        for entry in flags:
            flag, field = entry if isinstance(entry, tuple) else (entry, entry)
            yield Option(flag, (f"{section}.{field}" if section else field,), name, **details)

    def shared(flag: str, *sections: str) -> Option:
        return Option(flag, tuple(f"{section}.{flag}" for section in sections), "Training")

    def own(name: str, section: str, *fields: str | tuple[str, str], **details: Any) -> Iterator[Option]:
        return group(name, section, *fields, phase=section, **details)

    yield from group("Network", "network", "model", "num_classes", "task", "loss", "train_model")
    yield from group("Network", "data", "image_size")
    yield from group("Network", "data", "channels")
    yield from group("Network", "network", "custom_objects")
    yield from group("Network", "network", "unsafe_load", kept=False)
    yield from group("What is searched", "space", "axes", "width_divisor", "couple_trunk", "search_dense")
    yield from group("What is searched", "", "shape", kept=False)
    yield from group(
        "Data", "data", "dataset", "data_dir", "features", "label_columns", "test_share", "train_limit", "skip_broken"
    )
    yield from group("Data", "data", "check_images", "cache_dir")
    yield from group("Data", "data", "resize", "preprocess")
    yield from group(
        "Data", "data", "pad_crop", "flip", "random_resized_crop", "color_jitter", "lighting", "test_resize"
    )
    yield from group("Run", "", "run_dir", "teacher_from", kept=False)
    yield Option("seed", tuple(f"{name}.seed" for name in ("data", "teacher", "search", "student", "qat")), "Run")
    yield from group("Run", "", "strategy", "precision")
    yield from group("Run", "", "deterministic")
    yield from group("Run", "", "checkpoint_minutes")
    yield from group("Run", "", "overwrite", "progress", kept=False)
    yield from group("Plan", "call", "dry_run", kept=False)
    yield shared("batch_size", "teacher", "search", "student", "qat")
    yield shared("accumulate", "teacher", "search", "student", "qat")
    yield shared("recompute", "teacher", "search", "student")
    yield shared("lr", "teacher", "search", "student")
    yield shared("momentum", "teacher", "search", "student", "qat")
    yield shared("l2", "teacher", "search", "student", "qat")
    yield from own("Training", "teacher", ("teacher_epochs", "epochs"), ("teacher_warmup", "warmup_epochs"))
    yield from own("Training", "teacher", ("teacher_lr", "lr"), overrides="lr")
    yield from group("Initial weights", "ranking", "importance", "importance_images")
    yield from group("Initial weights", "search", ("search_from_teacher", "from_teacher"))
    yield from group("Initial weights", "", "inherit")
    yield from group("Recipe", "", "recipe", "time", ("budget", "budgets"))
    yield from group("Latency", "latency", ("latency_format", "file_format"), ("latency_from", "table"))
    yield from group("Recipe", "race", "proposals", "searched", "race_effort", "race_share", "rate_factors")
    yield from group("Search", "search", "tolerance")
    yield from own("Search", "search", ("search_epochs", "epochs"), ("search_warmup", "warmup_epochs"))
    yield from own("Search", "search", ("search_lr", "lr"), overrides="lr")
    yield from group("Search", "search", "arch_lr", "arch_l2", "arch_betas", "temperature_start", "temperature_end")
    yield from group("Search", "search", "num_drawn", ("gumbel_noise", "noise"), "cost_weight", "cost_driver")
    yield from group("Search", "search", "split_share", "init_logits")
    yield from group("Search", "search", "calibration_batches", "keep_shape", "held_out_limit", "jit_compile")
    yield from own("Distillation", "student", ("student_epochs", "epochs"), ("student_warmup", "warmup_epochs"))
    yield from own("Distillation", "student", ("student_lr", "lr"), overrides="lr")
    yield from group("Distillation", "", "kd")
    for flag, field in (("kd_alpha", "alpha"), ("kd_temperature", "temperature")):
        yield Option(flag, tuple(f"{section}.{field}" for section in ("student", "qat")), "Distillation")
    yield from own("Distillation", "student", ("kd_alpha_end", "alpha_end"), ("kd_views", "views"))
    yield from group("Rivals", "", "rivals")
    yield from group("Baseline", "baseline", "kind", kept=False)
    yield from group("Baseline", "baseline", "random_shapes", "random_epochs")
    yield from group("Export", "export", "formats", "c_array", "preprocessing_inside", "test_limit")
    yield Option("threads", ("export.threads", "latency.threads"), "Export")
    yield from group("Export", "export", ("latency_rounds", "rounds"), ("latency_warmup", "warmup"))
    yield from group("Export", "export", ("export_tolerance", "max_difference"), "max_accuracy_drop")
    yield from group("Quantisation", "export", "calibration_images")
    yield from own("Quantisation", "qat", ("qat_epochs", "epochs"), ("qat_lr", "lr"))
    yield from group("Quantisation", "qat", ("qat_fallback", "fallback"), ("qat_float", "float_control"))
    yield from group("Output", "call", "compare", "page", "json", kept=False)


#: All flags, in the order of the help.
OPTIONS = tuple(_rows())
#: How the help names each section.
_PHASES = {"teacher": "teacher", "search": "search", "student": "student", "qat": "fine-tuning for 8 bits"}


def options_of(command: Command | None) -> tuple[Option, ...]:
    """The flags that a command uses; all flags without a command."""
    if command is None:
        return OPTIONS
    return tuple(one for one in OPTIONS if one.group in command.flags or one.flag in command.flags)


def sections() -> dict[str, type[Settings]]:
    """The settings classes by section; the empty name is the run itself, `call` a single call of a command."""
    hints = typing.get_type_hints(RunConfig)
    found = {name: hint for name, hint in hints.items() if isinstance(hint, type) and issubclass(hint, Settings)}
    return {"": RunConfig, **found, "call": CallSettings}


@dataclass(frozen=True)
class Flag:
    """A flag and the setting behind it.

    Attributes:
        option: The flag's row in the table.
        described: The setting that is the flag's first target.
    """

    option: Option
    described: Described

    @property
    def name(self) -> str:
        """Name of the flag as users type it, without dashes."""
        return self.option.flag

    @property
    def default(self) -> Any:
        """Default of the setting; `None` if the flag overrides another one, which counts by default."""
        return None if self.option.overrides else self.described.default

    @property
    def defaults(self) -> dict[str, Any]:
        """Defaults of recipes, if they differ from that of the setting."""
        found = {}
        for recipe, settings in RECIPES.items():
            values = [settings[target] for target in self.option.targets if target in settings]
            if values and not self.option.overrides:
                found[recipe] = values[0]
        return found

    @property
    def help(self) -> str:
        """What the flag does, with the section in front if several sections share the text."""
        text, phase = self.described.setting.help, _PHASES.get(self.option.phase)
        return text if phase is None else f"{phase[0].upper()}{phase[1:]}: {text[0].lower()}{text[1:]}"

    @property
    def is_switch(self) -> bool:
        """Whether the flag takes no value."""
        return self.described.kind is bool


def resolve(classes: dict[str, type[Settings]] | None = None) -> dict[str, Flag]:
    """All flags by name.

    Args:
        classes: The settings classes by section; by default `sections()`.
    """
    known = {
        f"{section}.{name}".lstrip("."): described
        for section, cls in (classes or sections()).items()
        for name, described in describe_settings(cls).items()
    }
    return {option.flag: Flag(option, known[option.targets[0]]) for option in OPTIONS}


def read_num_drawn(text: str) -> int | None:
    """Reads the number of widths to draw at once; `None` means all.

    Raises:
        UserError: The text is neither a positive whole number nor `all`.
    """
    if text == "all":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"`num_drawn` must be a whole number of at least 1, or all. Received: {text}.")
    return int(text)


def read_image_size(text: str | None) -> int | tuple[int, int] | None:
    """Reads a size of images: one number, or height and width as in `48x144`.

    Raises:
        UserError: The text is neither.
    """
    if not text:
        return None
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.strip().isdecimal() for side in sides):
        raise UserError(f"`image_size` must be a whole number, or height and width as in 48x144. Received: {text}.")
    height, width = int(sides[0]), int(sides[-1])
    return height if height == width else (height, width)


def read_dataset(text: str) -> str:
    """Reads the name of a data set; a Python file's path becomes absolute, as later commands may run elsewhere."""
    file = script_file(text)
    return text if file is None else f"{text.partition(':')[0]}:{file}"


def read_budgets(texts: list[str]) -> tuple[Budget, ...]:
    """Reads budgets as users write them; duplicates are dropped.

    Raises:
        UserError: A budget can't be read.
    """
    return tuple(dict.fromkeys(map(Budget.parse, texts)))


#: Functions that read flags which don't follow the type of their setting.
READERS: dict[str, Callable[[Any], Any]] = {
    "num_drawn": read_num_drawn,
    "image_size": read_image_size,
    "dataset": read_dataset,
    "budget": read_budgets,
}

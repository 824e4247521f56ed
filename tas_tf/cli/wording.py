"""Translates messages of the library, which name arguments and steps, into messages that name flags and commands."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator

from tas_tf.cli.commands import COMMANDS
from tas_tf.cli.table import OPTIONS
from tas_tf.errors import UserError

_ARGUMENT = re.compile(r"`([a-z_0-9]+(?:\.[a-z_0-9]+)?)`(=[\w-]+(?:[.:][\w-]+)*)?")
#: Words before names that aren't arguments: "Layer `noise`", "used in `conv`". They end the text before the name.
_NAMES_FOLLOW = (
    *("activation", "called", "extra", "feature", "layer", "model", "operation", "step"),
    *("at", "but", "in", "of", "reach"),
)
_NAMED = re.compile(rf"\b(?:{'|'.join(_NAMES_FOLLOW)}) $", re.IGNORECASE)
_DIFFERENCE = re.compile(r"^  ([a-z_0-9.]+): was ", re.MULTILINE)
_STEP = re.compile(r"\b([Rr]un) `(\w+)`")
#: Arguments that have different names in the library and in the settings.
_ALIASES = {"budget": "budget", "preprocessing": "preprocess"}
_console = False


def set_program(*, console: bool) -> None:
    """Sets how messages write commands: `tas-tf search` if `console`, else `python -m trainers.search`."""
    global _console
    _console = console


def command_line(name: str) -> str:
    """What a user types for a command.

    >>> command_line("search")
    'python -m trainers.search'
    """
    return f"tas-tf {name}" if _console else f"python -m {COMMANDS[name].module}"


def flag_name(argument: str, section: str | None = None, given: Container[str] = ()) -> str | None:
    """The flag that sets an argument, without dashes; `None` if no flag does or several could.

    Args:
        argument: Name of the argument, with or without its section, such as `student.epochs`.
        section: Section of the config in which to look first for an argument given without one.
        given: Flags that the user gave: a general one among them comes before one that would override it.

    >>> flag_name("student.alpha"), flag_name("epochs", "search"), flag_name("epochs")
    ('kd_alpha', 'search_epochs', None)
    >>> flag_name("student.lr"), flag_name("student.lr", given=["lr"])
    ('student_lr', 'lr')
    """
    if "." in argument:
        return _last(argument, given)
    for target in (f"{section}.{argument}", argument):
        if found := _last(target, given):
            return found
    flags = {flag for target, flag in _targets() if target.rpartition(".")[2] == argument}
    return flags.pop() if len(flags) == 1 else _ALIASES.get(argument)


def _targets() -> Iterator[tuple[str, str]]:
    for option in OPTIONS:
        for target in option.targets:
            yield target, option.flag


def _last(target: str, given: Container[str]) -> str | None:
    """The most specific flag of a setting: flags that override others come after them in the table."""
    found = [option for option in OPTIONS if target in option.targets]
    if not found:
        return None
    last = found[-1]
    return last.overrides if last.overrides in given and last.flag not in given else last.flag


def translate(text: str, section: str | None = None, given: Container[str] = ()) -> str:
    """Replaces arguments by flags, and steps by commands.

    Args:
        text: A message with arguments in backticks, `` `epochs` ``, and steps as in ``Run `search` first``. Other
            names follow a word that says what they are, such as `layer`, and stay.
        section: Section of the config that the arguments belong to.
        given: Flags that the user gave.

    >>> translate("`epochs` must be at least 1. Run `search` first.", "student")
    '`--student_epochs` must be at least 1. Run `python -m trainers.search` first.'
    >>> translate("Run `pipeline` with `budget`=latency:0.25.")
    'Run `python -m trainers.pipeline` with `--budget=latency:0.25`.'
    """

    def step(match: re.Match) -> str:
        return f"{match[1]} `{command_line(match[2])}`" if match[2] in COMMANDS else match[0]

    def argument(match: re.Match) -> str:
        flag = flag_name(match[1], section, given)
        if flag is None or _NAMED.search(match.string, 0, match.start()):
            return match[0]
        return f"`--{flag}{match[2] or ''}`"

    def difference(match: re.Match) -> str:
        return f"  {flag_name(match[1]) or match[1]}: was "

    lines = _DIFFERENCE.sub(difference, _ARGUMENT.sub(argument, _STEP.sub(step, text))).split("\n")
    # Several sections may share a flag; its line appears only once.
    return "\n".join(
        line for number, line in enumerate(lines) if not line.startswith("  ") or line not in lines[:number]
    )


def message(error: UserError, given: Container[str] = ()) -> str:
    """The message of an error, for the user of a command.

    Args:
        error: The error.
        given: Flags that the user gave.
    """
    return translate(str(error), error.section, given)

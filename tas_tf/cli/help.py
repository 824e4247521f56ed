"""The help of a command: what the command does, and its flags and their defaults, by group."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from tas_tf.cli.commands import COMMANDS, Command
from tas_tf.cli.table import Flag, Option, options_of
from tas_tf.cli.wording import command_line, translate
from tas_tf.recipes import RECIPES

_WIDTH = 100
#: Flags that come first, if a command has them, and their title.
_FIRST = ("model", "dataset", "run_dir", "teacher_from", "budget", "recipe", "time", "dry_run")
_FIRST_TITLE = "Most used"
_FLAGFILE = (
    "--flagfile=FILE reads flags from a file, one to a line. If a flag is given more than once, its last value counts. "
    "--budget can be repeated; the budgets of the last file that names any, or of the command line, count."
)


def help_text(docstring: str, known: dict[str, Flag], command: Command | None = None) -> str:
    """The text of `--help`.

    Args:
        docstring: Docstring of the command's module.
        known: The flags by name.
        command: The command whose flags to show; by default all flags are shown.
    """
    lines = [with_commands(docstring.strip()), ""]
    group = None
    for title, option in _in_order(options_of(command)):
        if title != group:
            lines += [""] if group else []
            lines.append(f"{title}:")
            group = title
        flag = known[option.flag]
        name = f"--[no]{flag.name}" if flag.is_switch else f"--{flag.name}"
        text = describe_flag(flag) + show_default(flag)
        lines.append(textwrap.fill(text, _WIDTH, initial_indent=f"  {name:<22} ", subsequent_indent=" " * 25))
    lines += ["", textwrap.fill(_FLAGFILE, _WIDTH)]
    if command is not None:
        lines.append("--helpfull shows the flags of all commands.")
    return "\n".join(lines)


def _in_order(options: Sequence[Option]) -> list[tuple[str, Option]]:
    """Options with the titles under which the help shows them; those that most users need come first."""
    by_flag = {option.flag: option for option in options}
    first = [(_FIRST_TITLE, by_flag.pop(flag)) for flag in _FIRST if flag in by_flag]
    return [*first, *((option.group, option) for option in by_flag.values())]


def with_commands(text: str) -> str:
    """Rewrites the commands in a docstring's examples to the form in which the user called this command."""
    for command in COMMANDS.values():
        text = text.replace(f"python -m {command.module}", command_line(command.name))
    return text


def describe_flag(flag: Flag) -> str:
    """What a flag does, with its choices; refers to other flags rather than to arguments."""
    text = translate(flag.help).replace("`", "")
    choices = flag.described.setting.choices
    if choices and not all(choice in text for choice in choices):
        text = f"{text.rstrip('.')}: {', '.join(choices)}."
    return text


def show_default(flag: Flag) -> str:
    """A flag's default as one would type it, in brackets; empty if there is none."""
    if flag.option.overrides:
        return f" (default --{flag.option.overrides})"
    default = plain_default(flag)
    return f" (default {default})" if default else ""


def plain_default(flag: Flag) -> str:
    """A flag's default as one would type it, or its defaults by recipe; empty if there is none.

    >>> from tas_tf.cli.table import resolve
    >>> plain_default(resolve()["student_epochs"]), plain_default(resolve()["tolerance"])
    ('fast 10, balanced 50, paper 300', '0.05')
    """
    if flag.defaults:
        return ", ".join(f"{recipe} {_show(flag.defaults.get(recipe, flag.default)) or 'none'}" for recipe in RECIPES)
    return _show(flag.default)


def _show(value: Any) -> str:
    if value is None or value == ():
        return ""
    if isinstance(value, bool):
        return "on" if value else ""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)

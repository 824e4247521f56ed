"""The pages of the reference: commands and flags from their tables, Python from the docstrings of the public names."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import tas_tf
from tas_tf.quiet import import_tensorflow

import_tensorflow()

from tas_tf.cli.commands import COMMANDS, Command
from tas_tf.cli.document import table
from tas_tf.cli.help import with_commands
from tas_tf.cli.table import OPTIONS, options_of, resolve
from tas_tf.cli.wording import set_program
from tas_tf.settings import Settings, describe_settings

ROOT = Path(__file__).parents[2]


def reference_pages() -> dict[str, str]:
    """All pages of the reference, by path in the site."""
    set_program(console=True)
    return {"reference/commands.md": _commands(), "reference/flags.md": _flags(), **api_pages()}


def api_pages() -> dict[str, str]:
    """One page for each public name, in the order of `tas_tf.__all__`."""
    return {f"reference/api/{name}.md": _api_page(name) for name in tas_tf.__all__ if name != "__version__"}


def _api_page(name: str) -> str:
    text = f"---\ntitle: {name}\n---\n\n::: tas_tf.{name}\n"
    value = getattr(tas_tf, name)
    if not (isinstance(value, type) and issubclass(value, Settings)):
        return text
    # The signature of such a class would show how its fields are made, and leave out those of its base classes.
    text += "    options:\n      members: []\n      merge_init_into_class: false\n      show_signature: false\n"
    lines = ["| argument | default | |", "| --- | --- | --- |"]
    for field, found in describe_settings(value).items():
        help = found.setting.help.replace("|", "\\|")
        lines.append(f"| `{field}` | `{found.default!r}` | {help} |")
    return "\n".join([text, *lines, ""])


def _commands() -> str:
    parts = ["# Commands", "`tas-tf COMMAND --help` shows the same, with each flag's help."]
    for command in COMMANDS.values():
        parts += [f"## {command.name}", _docstring(command)]
        groups = defaultdict(list)
        for option in options_of(command):
            groups[option.group].append(f"[`--{option.flag}`](flags.md#{option.flag})")
        parts += [f"- {group}: {', '.join(links)}" for group, links in groups.items()]
    return "\n\n".join(parts).replace("\n\n- ", "\n- ").replace(":\n- ", ":\n\n- ") + "\n"


def _docstring(command: Command) -> str:
    """A command's docstring, with its examples as blocks of code; a list of flags follows it."""
    path = ROOT / f"{command.module.replace('.', '/')}.py"
    lines, inside = [], False
    for line in with_commands(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))).splitlines():
        is_example = line.lstrip().startswith("tas-tf ") or (inside and line.startswith("    "))
        if is_example != inside:
            lines.append("```text" if is_example else "```")
        inside = is_example
        lines.append(line)
    return "\n".join([*lines, *(["```"] if inside else []), "", "Flags:"])


def _flags() -> str:
    header, rule, *rows = table(resolve())
    groups = defaultdict(list)
    for option, row in zip(OPTIONS, rows, strict=True):
        name = f"`--{option.flag}`"
        groups[option.group].append(row.replace(name, f"{name}{{ #{option.flag} }}", 1))
    parts = [
        "# Flags",
        "The column *argument* names the same setting in Python. [Commands](commands.md) lists those of each command.",
    ]
    for group, lines in groups.items():
        parts += [f"## {group}", "\n".join([header, rule, *lines])]
    return "\n\n".join(parts) + "\n"

"""Writes the table of all settings into docs/METHOD.md, from the same source as the flags and their help.

python -m tas_tf.cli.document docs/METHOD.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from tas_tf.cli.help import describe_flag, plain_default
from tas_tf.cli.table import OPTIONS, Flag, resolve, sections
from tas_tf.files import write_bytes
from tas_tf.settings import Settings

BEGIN = "<!-- settings: made by `make docs` -->"
END = "<!-- end of settings -->"


def main() -> None:
    """Writes the table into the file that the command line names."""
    (path,) = map(Path, sys.argv[1:])
    write_bytes(path, with_table(path.read_text(encoding="utf-8")).encode())


def with_table(text: str, known: dict[str, Flag] | None = None) -> str:
    """Returns a document with the table between its markers.

    Args:
        text: The document, with both markers.
        known: The flags by name; by default those of the commands.

    Raises:
        ValueError: A marker is missing.
    """
    return with_lines(text, table(known or resolve()), BEGIN, END)


def with_lines(text: str, lines: Iterable[str], begin: str, end: str) -> str:
    """Returns a document with other lines between two markers.

    Args:
        text: The document, with both markers.
        lines: The lines.
        begin: Marker before them.
        end: Marker behind them.

    Raises:
        ValueError: A marker is missing.
    """
    before, first, rest = text.partition(begin)
    _, last, after = rest.partition(end)
    if not first or not last:
        raise ValueError(f"The document must have the lines {begin} and {end}.")
    return "\n".join([f"{before}{begin}", "", *lines, "", f"{end}{after}"])


def table(known: dict[str, Flag]) -> Iterator[str]:
    """The lines of the table: one for each flag, with the Python argument that it sets."""
    classes: dict[str, type[Settings]] = sections()
    yield "| flag | argument | default | |"
    yield "| --- | --- | --- | --- |"
    for option in OPTIONS:
        flag = known[option.flag]
        arguments = ", ".join(f"`{_argument(target, classes)}`" for target in dict.fromkeys(option.targets))
        default = f"`--{option.overrides}`" if option.overrides else plain_default(flag)
        help = describe_flag(flag).replace("|", "\\|")
        yield f"| `--{flag.name}` | {arguments} | {default} | {help} |"


def _argument(target: str, classes: dict[str, type[Settings]]) -> str:
    section, _, name = target.rpartition(".")
    return f"{section}.{name}" if section and section in classes and section != "call" else name


if __name__ == "__main__":
    main()

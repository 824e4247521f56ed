"""How every command starts and ends: flags read, help shown, mistakes told in a line, exit codes."""

from __future__ import annotations

import errno
import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from absl import flags, logging

from tas_tf.errors import UserError
from trainers import options

_HELP = frozenset(["-h", "-help", "--help", "--helpshort", "--helpfull"])
#: What a disk may refuse: it is full, too small for a file, or not to be written.
_DISK_TROUBLE = frozenset([errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM])
#: What Python says of a text that isn't a number, and what we say.
_NUMBERS = {
    "invalid literal for int": "expected a whole number",
    "could not convert string to float": "expected a number",
}


def run(main: Callable[[], None]) -> None:
    """Runs a command on the arguments of the process, and ends the process.

    The exit code is 0 on success, 1 after a mistake of the user's and 130 after an interruption. What isn't the
    user's mistake keeps its traceback.
    """
    try:
        code = _exit_code(main, sys.argv)
        sys.stdout.flush()
    except BrokenPipeError:
        # Who reads has had enough, as `head` has; nor would Python's own last flush get through.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


def _exit_code(main: Callable[[], None], argv: Sequence[str]) -> int:
    if _HELP.intersection(argv[1:]):
        print(help_text(sys.modules[main.__module__].__doc__ or ""))
        return 0
    logging.set_verbosity(logging.ERROR)
    try:
        _read_flags(argv, getattr(sys.modules[main.__module__], "MORE", None))
        main()
    except (UserError, flags.Error) as error:
        print(f"error: {str(error).removeprefix('ERROR:: ')}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the same command, without --overwrite, goes on with what is finished.", file=sys.stderr)
        return 130
    except Exception as error:  # TensorFlow has errors of its own for a disk
        trouble = _disk_trouble(error)
        if trouble is None:
            raise
        print(f"error: {trouble}. What was finished before is kept.", file=sys.stderr)
        return 1
    return 0


def _disk_trouble(error: Exception) -> str | None:
    """What a disk refused, if that is what an error is about."""
    if isinstance(error, OSError) and error.errno in _DISK_TROUBLE:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    full = os.strerror(errno.ENOSPC)
    return full if full in str(error) else None


def _read_flags(argv: Sequence[str], more: flags.FlagHolder[list[str]] | None) -> None:
    """Reads the flags.

    Args:
        argv: The program and its arguments.
        more: The list flag of the command, if any, that goes on with what is left over: `--list one two`.

    Raises:
        flags.Error: A flag is unknown or its value is off.
        UserError: Something that isn't a flag is left.
    """
    try:
        left = flags.FLAGS(list(argv))[1:]
    except flags.UnrecognizedFlagError as error:
        raise UserError(f"{error} `--help` lists all flags.") from error
    except flags.IllegalFlagValueError as error:
        place, _, detail = str(error).partition(": ")
        wanted = next((text for sign, text in _NUMBERS.items() if detail.startswith(sign)), detail)
        raise UserError(f"{place}: {wanted}.") from error
    if budgets := _last_budgets(argv):
        flags.FLAGS["budget"].value = budgets
    if more is None:
        options.refuse(options.COMPARE)
    elif more.value and not any("=" in text for text in left):
        flags.FLAGS[more.name].value = [*more.value, *left]
        return
    if left:
        hint = f" Did you mean `--{left[0].lstrip('-')}`?" if "=" in left[0] else ""
        raise UserError(f"Expected flags only, `--name=value`. Received: {' '.join(left)}.{hint}")


def _last_budgets(argv: Sequence[str]) -> list[str]:
    """The budgets of that flagfile, or of the command line, which names one last: they replace those named before."""
    found = list(_budgets(list(argv[1:]), "command line"))
    return [budget for place, budget in found if place == found[-1][0]]


def _budgets(arguments: list[str], place: str) -> Iterator[tuple[str, str]]:
    """Yields where budgets are named, and the budgets, those of flagfiles within flagfiles included."""
    for number, text in enumerate(arguments):
        name, equals, value = text.partition("=")
        if name.lstrip("-") not in ("budget", "flagfile") or not name.startswith("-"):
            continue
        value = value if equals else arguments[number + 1]
        if name.endswith("budget"):
            yield place, value
        else:
            path = Path(value).expanduser()
            lines = [line.strip() for line in path.read_text().splitlines()]
            yield from _budgets([line for line in lines if line.startswith("-")], str(path))


def _default(flag: flags.Flag) -> str:
    """A flag's default as one would type it."""
    if flag.boolean:
        return " (on unless given)" if flag.default else ""
    default = ",".join(flag.default) if isinstance(flag.default, list) else flag.default
    return "" if default in (None, "") else f" (default {default})"


def help_text(docstring: str) -> str:
    """A command's own docstring, then the project's flags with their defaults, by group."""
    lines = [docstring.strip(), ""]
    for group, holders in options.GROUPS.items():
        lines.append(f"{group}:")
        for holder in holders:
            flag = flags.FLAGS[holder.name]
            name = f"--[no]{flag.name}" if flag.boolean else f"--{flag.name}"
            text = options.holder_help(holder) + _default(flag)
            lines.append(textwrap.fill(text, 100, initial_indent=f"  {name:<22} ", subsequent_indent=" " * 25))
        lines.append("")
    note = (
        "--flagfile=FILE reads flags from a file, one a line; the last value of a flag wins. Of --budget, which can be "
        "repeated, those of the last file that names any, or of the command line."
    )
    lines.append(textwrap.fill(note, 100))
    return "\n".join(lines)

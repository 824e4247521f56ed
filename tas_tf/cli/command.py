"""How every command starts and ends: flags read, help shown, mistakes told in a line, exit codes."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence

from absl import flags, logging
from rich.console import Console

from tas_tf.cli.flagfile import keep_settings, last_budgets, origin, restore_flags
from tas_tf.cli.help import help_text
from tas_tf.cli.options import FLAGS, Parsed, parse
from tas_tf.cli.wording import message, translate
from tas_tf.errors import UserError
from tas_tf.pipeline.plan import show_plan
from tas_tf.pipeline.steps import RunStep
from tas_tf.runs.workspace import Shared, Workspace

_HELP = frozenset(["-h", "-help", "--help", "--helpshort", "--helpfull"])
#: What a disk may refuse: it is full, too small for a file, or not to be written.
_DISK_TROUBLE = frozenset([errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM])
#: What Python says of a text that isn't a number, and what we say.
_NUMBERS = {
    "invalid literal for int": "expected a whole number",
    "could not convert string to float": "expected a number",
}
_PIPED_WIDTH = 120  # of tables that go to a file


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


def start(*, earlier: bool = False, whole: bool = False, plans: bool = False) -> tuple[Workspace, Parsed]:
    """What a command works with, from its flags.

    Args:
        earlier: Whether it goes on with a run that is there: flags that aren't given are what that was made with.
        whole: Whether it is the whole pipeline, which replaces only what was made from other settings.
        plans: Whether it can say what it would do.

    Raises:
        UserError: A flag is off.
    """
    parsed = parse()
    if earlier:
        restore_flags(parsed.config.run)
        parsed = parse()
    if parsed.call.dry_run and not plans:
        raise UserError("`dry_run` means nothing to this command. Leave it out.")
    return Workspace.open(parsed.config, make_shared(), keeps_fresh=whole), parsed


def make_shared() -> Shared:
    """Console, wording and flagfiles, as commands want them."""
    return Shared(make_console(), keep_settings, translate, origin)


def make_console() -> Console:
    """Where commands write tables and messages."""
    return Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH)


def planned(workspace: Workspace, parsed: Parsed, steps: Sequence[RunStep]) -> bool:
    """Shows what the steps would do if that is all that was asked for; whether it was."""
    if parsed.call.dry_run:
        show_plan(workspace, steps)
    return parsed.call.dry_run


def _exit_code(main: Callable[[], None], argv: Sequence[str]) -> int:
    module = sys.modules[main.__module__]
    if asked := _HELP.intersection(argv[1:]):
        command = None if "--helpfull" in asked else getattr(module, "COMMAND", None)
        print(help_text(module.__doc__ or "", FLAGS, command))
        return 0
    logging.set_verbosity(logging.ERROR)
    try:
        _read_flags(argv, getattr(module, "TAKES_MORE", None))
        main()
    except (UserError, flags.Error) as error:
        text = message(error) if isinstance(error, UserError) else str(error)
        print(f"error: {text.removeprefix('ERROR:: ')}", file=sys.stderr)
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


def _read_flags(argv: Sequence[str], more: str | None) -> None:
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
        raise UserError(f"{error} `--helpfull` lists all flags.") from error
    except flags.IllegalFlagValueError as error:
        place, _, detail = str(error).partition(": ")
        wanted = next((text for sign, text in _NUMBERS.items() if detail.startswith(sign)), detail)
        raise UserError(f"{place}: {wanted}.") from error
    if budgets := last_budgets(list(argv)):
        flags.FLAGS["budget"].value = budgets
    if more is None and flags.FLAGS["compare"].value:
        raise UserError("`compare` means nothing to this command. Leave it out.")
    if more and flags.FLAGS[more].value and not any("=" in text for text in left):
        flags.FLAGS[more].value = [*flags.FLAGS[more].value, *left]
        return
    if left:
        hint = f" Did you mean `--{left[0].lstrip('-')}`?" if "=" in left[0] else ""
        raise UserError(f"Expected flags only, `--name=value`. Received: {' '.join(left)}.{hint}")

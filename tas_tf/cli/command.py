"""How every command starts and ends: it reads flags, shows help, reports errors in one line and sets the exit code."""

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
from tas_tf.pipeline.steps import PipelineStep
from tas_tf.runs.shared import Shared
from tas_tf.runs.workspace import Workspace

_HELP = frozenset(["-h", "-help", "--help", "--helpshort", "--helpfull"])
#: Errors of a disk that is full or read-only, or on which the user may not write.
_DISK_TROUBLE = frozenset([errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM])
#: How Python's messages for a text that isn't a number begin, and what the user is told instead.
_NUMBERS = {
    "invalid literal for int": "expected a whole number",
    "could not convert string to float": "expected a number",
}
_PIPED_WIDTH = 120  # width of tables that go to a file or pipe


def run(main: Callable[[], None]) -> None:
    """Runs a command on the arguments of the process, and ends the process.

    The exit code is 0 on success, 1 after an error that the user can fix and 130 after an interruption. Any other
    error keeps its traceback.
    """
    try:
        code = _exit_code(main, sys.argv)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has closed the pipe, as `head` does. Python's own last flush would fail too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


def start(*, earlier: bool = False, whole: bool = False, plans: bool = False) -> tuple[Workspace, Parsed]:
    """Reads the flags of a command and opens the workspace of its run.

    Args:
        earlier: Whether the command continues an existing run, whose flagfile gives the flags that the user doesn't.
        whole: Whether the command is the whole pipeline, which replaces only results made from other settings.
        plans: Whether the command supports `dry_run`.

    Raises:
        UserError: A flag is invalid.
    """
    parsed = parse()
    if earlier:
        restore_flags(parsed.config.run)
        parsed = parse()
    if parsed.call.dry_run and not plans:
        raise UserError("This command doesn't support `dry_run`. Leave it out.")
    # A plan has no JSON.
    shared = make_shared(as_json=parsed.call.json and not parsed.call.dry_run)
    return Workspace.open(parsed.config, shared, keeps_fresh=whole), parsed


def make_shared(*, as_json: bool = False) -> Shared:
    """What the runs of a command share: its console, flagfiles, and messages in terms of flags.

    Args:
        as_json: Whether reports go to stdout as JSON; messages then go to stderr.
    """
    return Shared(make_console(stderr=as_json), keep_settings, translate, origin, as_json)


def make_console(*, stderr: bool = False) -> Console:
    """The console that commands write tables and messages to: stdout, or stderr if stdout is for JSON."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else _PIPED_WIDTH)


def planned(workspace: Workspace, parsed: Parsed, steps: Sequence[PipelineStep]) -> bool:
    """Shows the plan of the steps in a dry run; returns whether this is a dry run."""
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
        print("interrupted: run the same command without --overwrite to continue.", file=sys.stderr)
        return 130
    except Exception as error:  # TensorFlow has its own errors for disks
        trouble = _disk_trouble(error)
        if trouble is None:
            raise
        print(f"error: {trouble}. Everything finished before is kept.", file=sys.stderr)
        return 1
    return 0


def _disk_trouble(error: Exception) -> str | None:
    """Describes an error of the disk; `None` for any other error."""
    if isinstance(error, OSError) and error.errno in _DISK_TROUBLE:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    full = os.strerror(errno.ENOSPC)
    return full if full in str(error) else None


def _read_flags(argv: Sequence[str], more: str | None) -> None:
    """Reads the flags.

    Args:
        argv: The program and its arguments.
        more: Name of the list flag, if any, that takes the remaining arguments too, as in `--list one two`.

    Raises:
        flags.Error: A flag is invalid in a way that `UserError` doesn't cover.
        UserError: A flag is unknown or its value is invalid, or an argument isn't a flag.
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
        raise UserError("This command doesn't support `compare`. Leave it out.")
    if more and flags.FLAGS[more].value and not any("=" in text for text in left):
        flags.FLAGS[more].value = [*flags.FLAGS[more].value, *left]
        return
    if left:
        hint = f" Did you mean `--{left[0].lstrip('-')}`?" if "=" in left[0] else ""
        raise UserError(f"Expected flags only, `--name=value`. Received: {' '.join(left)}.{hint}")

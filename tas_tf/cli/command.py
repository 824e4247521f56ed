"""How every command starts and ends: it reads flags, shows help, reports errors in one line and sets the exit code."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl import flags, logging
from rich.console import Console

from tas_tf import workers
from tas_tf.cli.commands import Command, command_of
from tas_tf.cli.flagfile import (
    flag_name_of,
    flags_of,
    keep_settings,
    last_budgets,
    origin,
    restore_custom_objects,
    restore_flags,
)
from tas_tf.cli.help import help_text
from tas_tf.cli.options import FLAGS, Parsed, parse
from tas_tf.cli.table import OPTIONS, options_of
from tas_tf.cli.wording import message, translate
from tas_tf.data.decodable import trouble_with_images
from tas_tf.data.own_data import trouble_with_own_data
from tas_tf.errors import UserError
from tas_tf.interruption import EXIT_CODE, LOST_CODE, Terminated, listening
from tas_tf.pipeline.plan import show_plan
from tas_tf.pipeline.steps import PipelineStep
from tas_tf.runs.lock import release_all
from tas_tf.runs.recovery import recover
from tas_tf.runs.schedule import Schedule, load_schedule
from tas_tf.runs.shared import Shared
from tas_tf.runs.workspace import Workspace
from tas_tf.timing.plan import DECIDED
from tas_tf.training.strategy import make_strategy

_HELP = frozenset(["-h", "-help", "--help", "--helpshort", "--helpfull"])
#: Errors of a disk that is full or read-only, or on which the user may not write, and of a folder in a file's place.
_DISK_TROUBLE = frozenset(
    [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EISDIR]
)
#: How messages for a text of the wrong type begin, and what the user is told instead.
_TYPES = {
    "invalid literal for int": "expected a whole number",
    "could not convert string to float": "expected a number",
    "('Non-boolean argument": "expected true or false",
}
_PIPED_WIDTH = 120  # width of tables that go to a file or pipe


def run(main: Callable[[], Any]) -> None:
    """Runs a command on the arguments of the process, and ends the process.

    With `--json`, what `main` returns is printed to stdout as JSON, and everything else goes to stderr. The exit code
    is 0 on success, 1 after an error that the user can fix, 130 after Ctrl-C, 75 after SIGTERM, and 69 if another
    worker was lost. Any other error keeps its traceback.
    """
    try:
        code = _exit_code(main, sys.argv)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has closed the pipe, as `head` does. Python's own last flush would fail too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


def start(*, earlier: bool = False, whole: bool = False, prepared: bool = True) -> tuple[Workspace, Parsed]:
    """Reads the flags of a command and opens the workspace of its run.

    Args:
        earlier: Whether the command continues an existing run, whose flagfile gives the flags that the user doesn't.
        whole: Whether the command is the whole pipeline, which replaces only results made from other settings.
        prepared: See `Workspace.open`.

    Raises:
        UserError: A flag is invalid or isn't the same on all workers, or there is a time without a plan for it.
    """
    parsed, shared = parse(), make_shared()
    if files := restore_custom_objects(parsed.config):
        shared.console.print(f"Imports {', '.join(files)}, as the run did before.", highlight=False, soft_wrap=True)
        parsed = parse()
    if earlier:
        restore_flags(parsed.config.run)
        parsed = parse()
    make_strategy(parsed.config.strategy)  # several workers have to meet before anything is computed
    if workers.count() > 1:
        workers.check_alike(flags_of(parsed.config))
    shared.console.quiet = not workers.is_chief()
    if parsed.config.run_dir and not parsed.call.dry_run:
        workers.once(lambda: recover(parsed.config.run))
    schedule = load_schedule(parsed.config)
    if parsed.config.time is not None and schedule is None and not whole:
        raise UserError("`time` plans the whole pipeline. Run `pipeline` with it, or leave it out.")
    config = parsed.config if schedule is None else schedule.applied(parsed.config)
    return Workspace.open(config, shared, keeps_fresh=whole, prepared=prepared), parsed


def make_shared() -> Shared:
    """What the runs of a command share: its console, flagfiles, and messages in terms of flags."""
    return Shared(make_console(), keep_settings, translate, origin)


def make_console() -> Console:
    """The console that commands write tables and messages to."""
    return Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH)


def planned(
    workspace: Workspace, parsed: Parsed, steps: Sequence[PipelineStep], schedule: Schedule | None = None
) -> bool:
    """Shows the plan of the steps in a dry run; returns whether this is a dry run."""
    if parsed.call.dry_run:
        show_plan(workspace, steps, schedule)
    return parsed.call.dry_run


def _exit_code(main: Callable[[], Any], argv: Sequence[str]) -> int:
    module = sys.modules[main.__module__]
    command = command_of(module)
    if asked := _HELP.intersection(argv[1:]):
        print(help_text(module.__doc__ or "", FLAGS, None if "--helpfull" in asked else command))
        return 0
    logging.set_verbosity(logging.ERROR)
    try:
        _read_flags(argv, command)
        with listening(), contextlib.nullcontext() if not flags.FLAGS["json"].value else _everything_to_stderr():
            result = _naming_data(main)
        if not flags.FLAGS["json"].value:
            return 0
        if result is not None and workers.is_chief():
            print(json.dumps(result, indent=2))
    except (UserError, flags.Error) as error:
        given = {name for name in flags.FLAGS if flags.FLAGS[name].present}
        text = message(error, given) if isinstance(error, UserError) else str(error)
        print(f"error: {text.removeprefix('ERROR:: ')}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, Terminated) as request:
        print("interrupted: run the same command without --overwrite to continue.", file=sys.stderr)
        return 130 if isinstance(request, KeyboardInterrupt) else EXIT_CODE
    except Exception as error:  # TensorFlow has its own errors for disks, and for workers
        if workers.is_loss_of_worker(error):
            print(
                f"error: worker {workers.number()} lost another worker, whose messages say why. Start all of them "
                "again with the same commands, without --overwrite, to continue.",
                file=sys.stderr,
            )
            return LOST_CODE
        trouble = _disk_trouble(error)
        if trouble is None:
            raise
        print(f"error: {trouble}. Everything finished before is kept.", file=sys.stderr)
        return 1
    finally:
        release_all()
    return 0


def _naming_data(main: Callable[[], Any]) -> Any:
    """Runs a command, and finds the images or the user's code that can't be read if it stops because of them.

    Raises:
        UserError: The data can't be read.
    """
    try:
        return main()
    except Exception as error:
        trouble = None
        if not workers.is_loss_of_worker(error):
            trouble = trouble_with_images(error) or trouble_with_own_data(error)
        if trouble is None:
            raise
        raise trouble from error


@contextlib.contextmanager
def _everything_to_stderr() -> Iterator[None]:
    """Sends to stderr what is printed, by Keras too."""
    try:
        # A copy, so that lines appear at once while native libraries are silenced.
        stream = os.fdopen(os.dup(sys.stderr.fileno()), "w", buffering=1)
    except io.UnsupportedOperation:  # stderr isn't a file
        stream = contextlib.nullcontext(sys.stderr)
    with stream as opened, contextlib.redirect_stdout(opened):
        yield


def _disk_trouble(error: Exception) -> str | None:
    """Describes an error of the disk; `None` for any other error."""
    if isinstance(error, OSError) and error.errno in _DISK_TROUBLE:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    full = os.strerror(errno.ENOSPC)
    return full if full in str(error) else None


def _read_flags(argv: Sequence[str], command: Command | None) -> None:
    """Reads the flags.

    Args:
        argv: The program and its arguments.
        command: The command, if it is known.

    Raises:
        flags.Error: A flag is invalid in a way that `UserError` doesn't cover.
        UserError: A flag is unknown, isn't supported by the command or has an invalid value, or an argument isn't a
            flag.
    """
    try:
        left = flags.FLAGS(list(argv))[1:]
    except flags.UnrecognizedFlagError as error:
        raise UserError(f"{error} `--helpfull` lists all flags.") from error
    except UnicodeDecodeError:
        last_budgets(list(argv))  # reads the same files, and names the one that isn't a text
        raise
    except flags.IllegalFlagValueError as error:
        place, _, detail = str(error).partition(": ")
        wanted = next((text for sign, text in _TYPES.items() if detail.startswith(sign)), detail)
        raise UserError(f"{place}: {wanted}.") from error
    if budgets := last_budgets(list(argv)):
        flags.FLAGS["budget"].value = budgets
    used = options_of(command)
    for option in OPTIONS:
        if option.targets[0].startswith("call.") and option not in used and flags.FLAGS[option.flag].value:
            raise UserError(f"This command doesn't support `{option.flag}`. Leave it out.")
    _check_undecided(argv)
    more = command.takes_more if command else None
    if more and flags.FLAGS[more].value and not any("=" in text for text in left):
        flags.FLAGS[more].value = [*flags.FLAGS[more].value, *left]
        return
    if command and command.takes_model and len(left) == 1 and "=" not in left[0]:
        flags.FLAGS([argv[0], f"--model={left[0]}"])
        return
    if left:
        raise UserError(
            f"Expected flags only, `--name=value`. Received: {' '.join(left)}. "
            f"Did you mean `--{_meant(left[0], command)}`?"
        )


def _check_undecided(argv: Sequence[str]) -> None:
    """Checks that the command line doesn't give what `time` decides; flagfiles may.

    Raises:
        UserError: It does.
    """
    typed = {flag_name_of(argument) for argument in argv[1:] if argument.startswith("-")}
    decided = [option.targets[0] for option in OPTIONS if {*option.targets} & {*DECIDED} and option.flag in typed]
    if flags.FLAGS["time"].value is not None and decided:
        raise UserError(f"`time` decides `{decided[0]}`. Leave out one of the two.")


def _meant(argument: str, command: Command | None) -> str:
    """The flag that an argument which isn't one probably means."""
    if "=" in argument:
        return argument.lstrip("-")
    used = {option.flag for option in options_of(command)}
    continues = command is not None and command.name in ("export", "report")
    return f"{'run_dir' if continues or 'model' not in used else 'model'}={argument}"

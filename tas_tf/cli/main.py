"""The console command `tas-tf`: `tas-tf search --flagfile=mine.cfg` runs the module of the search command."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys

from tas_tf.cli.commands import COMMANDS
from tas_tf.version import __version__


def main() -> None:
    """Runs a command on the arguments of the process, and ends the process."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        sys.exit(0 if arguments else 1)
    if arguments[0] in ("--version", "version"):
        print(f"tas-tf {__version__}")
        sys.exit(0)
    name, *rest = arguments
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1, 0.5)
        hint = f" Did you mean `tas-tf {near[0]}`?" if near else ""
        print(f"error: there is no command {name!r}.{hint} `tas-tf --help` lists all commands.", file=sys.stderr)
        sys.exit(1)
    sys.argv = [f"tas-tf {name}", *rest]
    module = importlib.import_module(module_name(name))
    # This import comes after the module's own, which loads TensorFlow quietly.
    from tas_tf.cli.command import run
    from tas_tf.cli.wording import set_program

    set_program(console=True)
    run(module.main)


def usage() -> str:
    """The text of `tas-tf --help`."""
    lines = [
        "usage: tas-tf COMMAND [FLAGS]",
        "",
        "Makes a trained Keras CNN smaller and faster.",
        "",
        *(f"  {command.name:<10} {command.summary}" for command in COMMANDS.values()),
        "",
        "  tas-tf describe mine.keras",
        "  tas-tf pipeline mine.keras --dataset=folder:photos --budget=macs:0.5 --run_dir=runs/mine",
        "  tas-tf export --run_dir=runs/mine --formats=fp32,int8",
        "",
        "tas-tf COMMAND --help shows the flags of a command, and tas-tf --version shows the version.",
    ]
    return "\n".join(lines)


def module_name(name: str) -> str:
    """The module of a command: inside the package if it exists there, as in a wheel, else at the top level."""
    module = COMMANDS[name].module
    inside = f"tas_tf.{module}"
    package = inside.rpartition(".")[0]
    return inside if importlib.util.find_spec(package) is not None else module


if __name__ == "__main__":
    main()

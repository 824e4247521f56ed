"""The flagfile of a run, which is written beside the results and read by commands that continue the run."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from absl import flags

from tas_tf.cli.options import FLAGS
from tas_tf.cli.table import OPTIONS
from tas_tf.cli.wording import command_line
from tas_tf.errors import UserError
from tas_tf.files import read_text, write_bytes
from tas_tf.runs.config import RunConfig
from tas_tf.runs.records import read_record
from tas_tf.runs.run import Run
from tas_tf.runs.shared import Origin
from tas_tf.runs.workspace import Workspace
from tas_tf.timing.plan import DECIDED

_PLACES = ("run_dir", "teacher_from", "shape")
#: Flags that may differ between machines which train together.
_OF_THE_MACHINE = ("data_dir", "cache_dir")


def keep_settings(workspace: Workspace, names: Collection[str]) -> None:
    """Writes the settings of a run as a flagfile into its folder, which must exist.

    Args:
        workspace: The run.
        names: Dotted names of settings to write with their current values, whether given or not. Any other setting
            that isn't given keeps the value in the existing flagfile, unless the whole pipeline runs.
    """
    config = workspace.config
    earlier = {} if workspace.keeps_fresh else _read_flags(config.run)
    used = {option.flag for option in OPTIONS if set(option.targets) & set(names)} | _budget_flag(names)
    lines: list[str] = []
    for option in OPTIONS:
        if option.flag in earlier and not flags.FLAGS[option.flag].present and option.flag not in used:
            lines += earlier[option.flag]
        elif option.flag == "strategy" and config.strategy == "multi_worker":
            continue  # a later command may run on one machine
        elif option.kept and not (config.time and set(option.targets) & set(DECIDED)):
            lines += _lines(option.flag, config)
    places = {name: getattr(config, name) for name in _PLACES}
    lines += [f"--{name}={value}" for name, value in places.items() if value]
    write_bytes(config.run.flags_cfg, ("\n".join(lines) + "\n").encode())


def flags_of(config: RunConfig) -> dict[str, str]:
    """The settings that all workers of a run must share, by the names of their flags; empty where nothing is given."""
    kept = [option.flag for option in OPTIONS if option.kept and option.flag not in _OF_THE_MACHINE]
    return {name: " ".join(line.partition("=")[2] or line for line in _lines(name, config)) for name in kept}


def _budget_flag(names: Collection[str]) -> set[str]:
    return {"budget"} if "budget" in names else set()


def _lines(name: str, config: RunConfig) -> list[str]:
    """A flag as lines of a flagfile. Flags that a rival or a further budget changes have the value of that run."""
    target = FLAGS[name].option.targets[0]
    if name == "budget":
        return [f"--budget={budget}" for budget in dict.fromkeys(config.budgets)]
    if "." not in target:
        value = getattr(config, target)
        if value is None:
            return []
        if isinstance(value, bool):
            return [f"--{'' if value else 'no'}{name}"]
        return [f"--{name}={','.join(value) if isinstance(value, tuple) else value}"]
    if name == "custom_objects":  # later commands may run in another folder
        paths = [str(Path(path).expanduser().resolve()) for path in config.network.custom_objects]
        return [f"--{name}={','.join(paths)}"] if paths else []
    if name == "latency_from":
        path = config.latency.table
        return [f"--{name}={Path(path).resolve()}"] if path else []
    if name in ("dataset", "preprocess", "resize"):
        return [f"--{name}={getattr(config.data, name)}"]  # with an absolute path, and what was found
    return [line for line in flags.FLAGS[name].serialize().splitlines() if line]


def restore_flags(run: Run) -> None:
    """Sets flags that weren't given to the values in the flagfile of a run."""
    if run.flags_cfg.exists():
        given = {name for name in flags.FLAGS if flags.FLAGS[name].present}
        lines = [line for line in _text(run) if flag_name_of(line) not in given]
        flags.FLAGS(["", *lines])


def restore_custom_objects(config: RunConfig) -> tuple[str, ...]:
    """Sets the files with the network's own layers, if none are given, to those that the run has used.

    Returns:
        The files that were set.
    """
    runs = [Run(path) for path in (config.run_dir, config.teacher_from) if path]
    if not flags.FLAGS["custom_objects"].present:
        for line in (line for run in runs for line in _text(run) if flag_name_of(line) == "custom_objects"):
            flags.FLAGS(["", line])
            return tuple(flags.FLAGS["custom_objects"].value)
    return ()


def origin(run: Run) -> Origin:
    """Returns how a run was made: its flags, and the command that makes it again."""
    found: dict[str, list[str]] = {}
    for name, separator, value in (line.removeprefix("--").partition("=") for line in _text(run)):
        found.setdefault(name, []).append(value if separator else "yes")
    return Origin({name: ", ".join(values) for name, values in found.items()}, _command(run))


def _command(run: Run) -> str:
    given = f"--flagfile={run.flags_cfg}"
    record = read_record(run.search_shape.with_name("digest.json"))
    kind = record["settings"].get("kind")
    if "probabilities" in record["inputs"]:
        # The shape was decoded from the search of the outer run; this run is at RUN/budgets/NAME.
        given = f"--flagfile={Run(run.path.parents[1]).flags_cfg}"
    if kind is None:
        return f"{command_line('pipeline')} {given}"
    return (
        f"{command_line('baseline')} --kind={kind} {given}; {command_line('distill')} {given}; "
        f"{command_line('export')} {given}"
    )


def _text(run: Run) -> list[str]:
    return read_text(run.flags_cfg).splitlines() if run.flags_cfg.exists() else []


def _read_flags(run: Run) -> dict[str, list[str]]:
    """Lines of a run's flagfile by flag, without flags that aren't kept from call to call, such as folders."""
    kept = {option.flag for option in OPTIONS if option.kept}
    found: dict[str, list[str]] = {}
    for line in _text(run):
        found.setdefault(flag_name_of(line), []).append(line)
    return {name: lines for name, lines in found.items() if name in kept}


def flag_name_of(line: str) -> str:
    """Name of the flag that a line of a flagfile, or an argument, sets."""
    name = line.lstrip("-").partition("=")[0]
    return name if name in flags.FLAGS else name.removeprefix("no")


def last_budgets(argv: list[str]) -> list[str]:
    """The budgets from the last flagfile that names any, or from the command line; they replace earlier ones."""
    found = list(_budgets(argv[1:], "command line"))
    return [budget for place, budget in found if place == found[-1][0]]


def _budgets(arguments: list[str], place: str, within: tuple[Path, ...] = ()) -> Iterator[tuple[str, str]]:
    """Yields each budget and the place that names it, in flagfiles within flagfiles too, as `(place, budget)`.

    Raises:
        UserError: A flagfile includes itself, also by way of others.
    """
    for number, text in enumerate(arguments):
        name, equals, value = text.partition("=")
        if name.lstrip("-") not in ("budget", "flagfile") or not name.startswith("-"):
            continue
        value = value if equals else arguments[number + 1]
        if name.endswith("budget"):
            yield place, value
        else:
            path = Path(value).expanduser().resolve()
            if path in within:
                raise UserError(f"{path} includes itself. Remove the line that does, here or in a file between.")
            lines = [line.strip() for line in read_text(path).splitlines()]
            yield from _budgets([line for line in lines if line.startswith("-")], str(path), (*within, path))

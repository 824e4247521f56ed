"""Gives commands random bad input, and checks that each ends with a clear error.

    python -m benchmarks.fuzz [--cases=5000] [--seed=0] [--kinds=flags,json,...] [--only=SEED]

A small network is trained, made smaller and exported. Then each case damages something: a flag, a flag file, a file of
the run, a checkpoint or record of an interrupted run, a shape, a model file, also of Keras 2, an image, a table, or
measured latencies. It is cut, some of its bytes or values are replaced, or parts are repeated or removed. A command
that reads it must end in time with the exit code 0 or 1, and print no traceback; after an error, every other file of
the run must be as before. Interrupted runs must end as an uninterrupted one does. Cases that fail are listed with their
seeds. `--only` runs a single seed again and shows what it prints. What was found is kept in benchmarks/records/fuzz
after each case, if `--kinds` isn't given, and the same command goes on from there. Exits with 1 if any case failed.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.commands import import_all, start
from benchmarks.damage import damage, damage_file, noise
from benchmarks.fuzz_base import COMMON, OF_KERAS_2, OFTEN, Base, prepare
from benchmarks.records import RECORDS
from benchmarks.run_files import is_same
from tas_tf.cli.commands import COMMANDS
from tas_tf.cli.table import OPTIONS
from tas_tf.files import read_json, write_json
from tas_tf.runs.lock import LOCK

#: Distance between the first seeds of consecutive runs.
SEEDS_APART = 1_000_000
#: Folders in which trainings keep what they go on from.
_KEPT = frozenset(["checkpoints"])
#: What goes on after an interruption removes or writes these again.
_OF_THE_CALL = ("flags.cfg", LOCK)
#: Seconds after which a command counts as hanging. Those that do something take a few.
_PATIENCE = 180
_RECORDS = RECORDS / "fuzz"
_FLAGS = Path(__file__).parents[1] / "flags"
_TEXTS = (
    "",
    "0",
    "-1",
    "1",
    "0.5",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "x",
    "true",
    "None",
    "macs:",
    "latency:0",
    "{}",
    "[]",
)
_TEXTS += (
    "macs:0.5",
    "/",
    "..",
    "/dev/null",
    "\x00",
    "ä",
    "a" * 5000,
    "1,2",
    "python:",
    "folder:",
    "csv:",
    "published/",
)
#: Damages something in a copy; returns the command, and what was damaged.
Kind = Callable[[random.Random, Base], tuple[str, list[str], Path | None]]


def main() -> None:
    options = _parse()
    import_all(command.module for command in COMMANDS.values())
    with tempfile.TemporaryDirectory() as folder:
        base = prepare(Path(folder) / "base")
        if options.only is not None:
            fault, out = _case(options.only, base, Path(folder) / "case", options.kinds)
            print(out, fault or "no fault", sep="\n")
            sys.exit(fault is not None)
        first, started = SEEDS_APART * options.seed, time.monotonic()
        path = _RECORDS / f"{options.seed}.json" if options.kinds == list(KINDS) else None
        found = read_json(path) if path and path.exists() else {"cases": 0, "kinds": {}, "faults": {}}
        for seed in range(first + found["cases"], first + options.cases):
            fault, _ = _case(seed, base, Path(folder) / "case", options.kinds)
            kind = _kind(seed, options.kinds)
            found["cases"] += 1
            found["kinds"][kind] = found["kinds"].get(kind, 0) + 1
            if fault is not None:
                found["faults"][str(seed)] = fault
                print(f"seed {seed}: {fault}", flush=True)
            if path:
                write_json(path, found)
            if found["cases"] % 100 == 0:
                print(f"{_summary(found)}, {time.monotonic() - started:.0f} s", flush=True)
    print(_summary(found))
    sys.exit(bool(found["faults"]))


def _summary(found: dict[str, Any]) -> str:
    shown = ", ".join(f"{name} {count}" for name, count in sorted(found["kinds"].items()))
    return f"{found['cases']} cases ({shown}), {len(found['faults'])} failed"


def _kind(seed: int, kinds: list[str]) -> str:
    return random.Random(seed).choice(kinds)


def _case(seed: int, base: Base, folder: Path, kinds: list[str]) -> tuple[str | None, str]:
    """Runs a case; returns what is wrong with its end, if anything, and what the command printed."""
    shutil.rmtree(folder, ignore_errors=True)
    copy, chance = base.within(folder), random.Random(seed)
    name = chance.choice(kinds)
    module, flags, damaged = KINDS[name](chance, copy)
    goes_on = KINDS[name] is _of_a_training
    before, printed = _contents(copy.folder, damaged, goes_on), folder.with_suffix(".txt")
    process = start(module, flags, printed)
    process.join(_PATIENCE)
    hangs = process.is_alive()
    if hangs:
        process.kill()
        process.join()
    out = printed.read_text(errors="replace")
    asked = f"{name}: {module} {' '.join(flag[:100] for flag in flags)}" + (f" ({damaged.name})" if damaged else "")
    fault = _fault(process.exitcode, hangs, out, before, _contents(copy.folder, damaged, goes_on))
    if fault is None and goes_on:
        (run,) = (flag.removeprefix("--run_dir=") for flag in flags if flag.startswith("--run_dir="))
        fault = _told(out) if process.exitcode else _unlike_the_uninterrupted(Path(run), base.run)
    return None if fault is None else f"{fault}: {asked}", f"{asked}\n{out}"


def _fault(code: int, hangs: bool, out: str, before: dict[str, bytes], after: dict[str, bytes]) -> str | None:
    if hangs:
        return "hangs"
    if "Traceback (most recent call last)" in out or code not in (0, 1):
        return f"exit code {code}, {out.strip().splitlines()[-1][:200] if out.strip() else ''}"
    if code == 1 and "error: " not in out:
        return "no error is told"
    if code == 1 and (
        changed := [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
    ):
        return f"an error changed {', '.join(sorted(changed)[:5])}"
    # Event files of the results have other names each time that a report is written.
    if lost := sorted(name for name in before.keys() - after.keys() if "logs/results/" not in name):
        return f"lost {', '.join(lost[:5])}"
    return None


def _told(out: str) -> str:
    """The error of a command that should have gone on from what is whole."""
    return f"stops because of one file: {next(line for line in out.splitlines() if 'error: ' in line)[:300]}"


def _unlike_the_uninterrupted(run: Path, uninterrupted: Path) -> str | None:
    """Results that differ from those of the run that nothing interrupted, if any."""
    names = ("teacher/model.keras", "search/shape.json", "student/model.keras", "export/fp32.tflite")
    differ = [name for name in names if not is_same(run / name, uninterrupted / name, {})]
    return f"other results than without an interruption: {', '.join(differ)}" if differ else None


def _contents(folder: Path, damaged: Path | None, goes_on: bool) -> dict[str, bytes]:
    """All files that a command must not lose, nor change before an error."""
    files = (path for path in folder.rglob("*") if path.is_file() and path != damaged)
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in files
        if not (goes_on and (_KEPT.intersection(path.parts) or path.name in _OF_THE_CALL))
    }


def _flags(chance: random.Random, base: Base) -> tuple[str, list[str], None]:
    flag = chance.choice([option.flag for option in OPTIONS if option.flag not in ("dry_run", "run_dir", "json")])
    text = chance.choice(_TEXTS) if chance.random() < 0.7 else noise(chance)
    given = [f"--model={base.model}", *COMMON, f"--{flag}={text}"]
    return "trainers.pipeline", [*given, f"--run_dir={base.folder / 'new'}", "--dry_run"], None


def _flag_files(chance: random.Random, base: Base) -> tuple[str, list[str], Path]:
    path = base.folder / "mine.cfg"
    source = chance.choice([*sorted(_FLAGS.glob("*.cfg")), base.run / "flags.cfg"])
    path.write_bytes(damage(chance, source.read_bytes()))
    given = [f"--model={base.model}", "--dataset=digits", f"--run_dir={base.folder / 'new'}", "--dry_run"]
    return "trainers.pipeline", [f"--flagfile={path}", *given], path


def _of_the_run(chance: random.Random, base: Base) -> tuple[str, list[str], Path]:
    """Any file of a run, and a command that goes on from it."""
    files = [
        path for path in sorted(base.run.rglob("*")) if path.is_file() and path.suffix in (".json", ".cfg", ".keras")
    ]
    path = chance.choice(files)
    damage_file(chance, path)
    module = chance.choice(
        ["trainers.report", "export.student", "trainers.distill", "trainers.pipeline", "trainers.search"]
    )
    plans = [] if module in ("trainers.report", "export.student") else [f"--model={base.model}", *COMMON, "--dry_run"]
    return module, [f"--run_dir={base.run}", *plans], path


def _of_a_training(chance: random.Random, base: Base) -> tuple[str, list[str], Path]:
    """A checkpoint, progress or a lap of an interrupted run, and the command that goes on with it."""
    run = chance.choice([base.interrupted, base.stopped])
    kept = [
        path for path in sorted(run.rglob("*")) if path.is_file() and _KEPT.intersection(path.relative_to(run).parts)
    ]
    path = chance.choice(kept)
    damage_file(chance, path)
    return "trainers.pipeline", [f"--model={base.model}", *COMMON, *OFTEN, f"--run_dir={run}"], path


def _shapes(chance: random.Random, base: Base) -> tuple[str, list[str], Path]:
    path = Path(shutil.copy(base.run / "search" / "shape.json", base.folder / "shape.json"))
    damage_file(chance, path)
    given = [f"--run_dir={base.folder / 'new'}", f"--teacher_from={base.run}", *COMMON, f"--shape={path}", "--dry_run"]
    return "trainers.distill", given, path


def _models(chance: random.Random, base: Base) -> tuple[str, list[str], Path]:
    path = base.model
    if chance.random() < 0.3:
        path = base.folder / "tiny.h5"
    damage_file(chance, path)
    return "trainers.describe", [str(path)], path


def _models_of_keras_2(chance: random.Random, base: Base) -> tuple[str, list[str], Path]:
    path = base.folder / chance.choice(OF_KERAS_2)
    damage_file(chance, path)
    return "trainers.describe", [str(path)], path


def _images(chance: random.Random, base: Base) -> tuple[str, list[str], Path]:
    path = chance.choice([one for one in sorted(base.photos.rglob("*")) if one.is_file() and one.suffix != ".csv"])
    damage_file(chance, path)
    skip = ["--skip_broken"] if chance.random() < 0.5 else []
    given = [f"--model={base.model}", "--train_model", *COMMON, f"--dataset=folder:{base.photos}", "--image_size=8"]
    limits = ["--train_limit=24", "--batch_size=4", f"--run_dir={base.folder / 'new'}"]
    return "trainers.teacher", [*given, *limits, *skip, "--dry_run"], path


def _tables(chance: random.Random, base: Base) -> tuple[str, list[str], Path]:
    damage_file(chance, base.table)
    given = [f"--model={base.model}", *COMMON, f"--dataset=csv:{base.table}", "--train_limit=24", "--batch_size=4"]
    return "trainers.teacher", [*given, "--image_size=8", f"--run_dir={base.folder / 'new'}", "--dry_run"], base.table


def _latencies(chance: random.Random, base: Base) -> tuple[str, list[str], Path]:
    path = Path(shutil.copy(base.latencies, base.folder / "latency.json"))
    damage_file(chance, path)
    given = [str(base.model), "--budget=latency:0.5", f"--latency_from={path}", "--dataset=digits"]
    return "trainers.describe", given, path


KINDS: dict[str, Kind] = {
    "flags": _flags,
    "flag files": _flag_files,
    "files of a run": _of_the_run,
    "interrupted runs": _of_a_training,
    "shapes": _shapes,
    "models": _models,
    **({"models of Keras 2": _models_of_keras_2} if find_spec("tf_keras") else {}),
    "images": _images,
    "tables": _tables,
    "latencies": _latencies,
}


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=5000, help="number of cases")
    parser.add_argument("--seed", type=int, default=0, help="which cases")
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=list(KINDS), help=", ".join(KINDS))
    parser.add_argument("--only", type=int, help="seed of a single case to run")
    options = parser.parse_args()
    if unknown := {*options.kinds} - KINDS.keys():
        parser.error(f"unknown kinds: {', '.join(unknown)}")
    return options


if __name__ == "__main__":
    main()

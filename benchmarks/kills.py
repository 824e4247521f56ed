"""Kills every step of a run at random moments, and checks that it ends as if nothing had happened.

    python -m benchmarks.kills [--steps=teacher,race,...] [--moments=20] [--signals=KILL,TERM] [--seed=0]

Each step is first run without interruption, on digits. Then, at each moment, the step starts from the same folder, gets
the signal, and is started again. After the signal, every file in the run folder must be whole, of the checkpoints of a
training at least one, and the exported files must be all the earlier or all the new ones, once what was moved away is
put back. At the end, shapes, weights, files for devices and reports must be those of the uninterrupted run; only times
may differ. SIGTERM must end the process with the exit code 75, or 0 if it had ended before. What was found is kept in
benchmarks/records/kills after each moment, from which a table in docs/RESULTS.md is made; the same command goes on from
there, and a step starts anew when its file is removed. Exits with 1 if anything was amiss.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.commands import import_all, run_to_the_end, start
from benchmarks.records import RECORDS
from benchmarks.run_files import is_same, is_whole
from tas_tf.cli.document import with_lines
from tas_tf.files import read_json, write_bytes, write_json
from tas_tf.interruption import EXIT_CODE
from tas_tf.replacing import PARTIAL_PREFIX, put_back
from tas_tf.runs.lock import LOCK

_DATA = ("--dataset=digits", "--train_limit=400", "--batch_size=32", "--test_limit=64", "--progress=none")
_COMMON = ("--model=resnet8", "--lr=0.05", "--teacher_epochs=3", "--teacher_warmup=0", "--student_epochs=3", *_DATA)
#: Saves after each step, as a killed training would otherwise go on from the end of an epoch.
_OFTEN = ("--checkpoint_minutes=0.000001",)
_EXPORT = ("--latency_rounds=5", "--calibration_images=32")
_SEARCH = (
    "--recipe=paper",
    "--search_epochs=3",
    "--calibration_batches=2",
    "--held_out_limit=64",
    "--student_warmup=0",
)


@dataclass(frozen=True)
class Killed:
    """A step to kill.

    Attributes:
        module: Module of its command.
        flags: Flags of the command.
        before: Commands that make what the step starts from, as modules and flags.
    """

    module: str
    flags: tuple[str, ...]
    before: tuple[tuple[str, tuple[str, ...]], ...] = ()


_TEACHER = ("trainers.teacher", _COMMON)
#: Stands for the file of a network with dropout, which is made for each step.
_WITH_DROPOUT = "--model=DROPOUT"
_RACE = ("trainers.search", (*_COMMON, "--proposals=3", "--race_effort=0.5"))
_DISTIL = ("trainers.distill", (*_COMMON, "--proposals=3", "--race_effort=0.5"))
#: Writes all that later exports replace.
_EARLIER = ("export.student", ("--latency_rounds=5", "--calibration_images=16", "--formats=saved_model,fp32,int8"))
_AGAIN = ("--overwrite", *_EXPORT)


def _with_dropout(command: tuple[str, tuple[str, ...]]) -> tuple[str, tuple[str, ...]]:
    """The same command for a network with dropout."""
    module, flags = command
    return module, (_WITH_DROPOUT, "--train_model", *(flag for flag in flags if not flag.startswith("--model=")))


_QAT = ("export.student", (*_AGAIN, "--formats=saved_model,fp32,qat_int8", "--qat_epochs=2"))
STEPS = {
    "teacher": Killed(*_TEACHER),
    "search": Killed("trainers.search", (*_COMMON, *_SEARCH)),
    "race": Killed(*_RACE, (_TEACHER,)),
    "distil": Killed(*_DISTIL, (_TEACHER, _RACE)),
    "export": Killed(
        "export.student", (*_AGAIN, "--formats=saved_model,fp32,int8"), (_TEACHER, _RACE, _DISTIL, _EARLIER)
    ),
    "qat": Killed(*_QAT, (_TEACHER, _RACE, _DISTIL, _EARLIER)),
    "qat_dropout": Killed(*_QAT, (*map(_with_dropout, (_TEACHER, _RACE, _DISTIL)), _EARLIER)),
    "pipeline": Killed("trainers.pipeline", (*_RACE[1], *_EXPORT, "--formats=fp32", "--rivals=uniform")),
}
_DOCS = Path(__file__).parents[1] / "docs" / "RESULTS.md"
_BEGIN, _END = "<!-- kills: made by benchmarks/kills.py -->", "<!-- end of kills -->"
#: What is known of a signal before the first moment.
_NONE: dict[str, Any] = {"moments": 0, "before_the_end": 0, "faults": []}
_MAKE_NETWORK = """
import sys
import keras
from keras import layers

keras.utils.set_random_seed(0)
images = keras.Input((8, 8, 1))
x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(16, 3, padding="same", use_bias=False)(images)))
y = layers.BatchNormalization()(layers.Conv2D(16, 3, padding="same", use_bias=False)(layers.Dropout(0.2)(x)))
x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(layers.ReLU()(layers.Add()([x, y]))))
keras.Model(images, layers.Dense(10)(x), name="dropout").save(sys.argv[1])
"""


def main() -> None:
    options = _parse()
    import_all(step.module for step in STEPS.values())
    amiss = 0
    for name in () if options.table else options.steps:
        path = _record(name)
        found = read_json(path) if path.exists() else {}
        todo = {each: _moments(options, name, each)[found.get(each, _NONE)["moments"] :] for each in options.signals}
        if any(todo.values()):
            with tempfile.TemporaryDirectory() as folder:
                print(f"== {name}", flush=True)
                base, whole, seconds = _prepare(Path(folder), STEPS[name])
                found = {"seconds": round(seconds, 1)} | found
                for each, moment in ((each, moment) for each, moments in todo.items() for moment in moments):
                    result = _interrupt(Path(folder), STEPS[name], base, whole, each, seconds * moment)
                    found[each] = _with(found.get(each, _NONE), result)
                    write_json(path, found)
        amiss += sum(len(found[each]["faults"]) for each in options.signals)
    lines = [*_table()]
    write_bytes(_DOCS, with_lines(_DOCS.read_text(), lines, _BEGIN, _END).encode())
    print("\n".join(lines))
    sys.exit(bool(amiss))


def _moments(options: argparse.Namespace, step: str, name: str) -> list[float]:
    """When a step gets a signal, as shares of the time that it takes."""
    chosen = random.Random(f"{options.seed} {step} {name}").sample(range(1000), options.moments)
    return [thousandth / 1000 for thousandth in chosen]


def _record(step: str) -> Path:
    return RECORDS / "kills" / f"{step}.json"


def _with(found: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """What was found with a signal, with one more result."""
    return {
        "moments": found["moments"] + 1,
        "before_the_end": found["before_the_end"] + result["before_the_end"],
        "faults": [*found["faults"], *result["faults"]],
    }


def _prepare(folder: Path, step: Killed) -> tuple[Path, Path, float]:
    """Makes what the step starts from and its uninterrupted result; returns both, and the seconds it took."""
    base, whole, network = folder / "base", folder / "whole", folder / "dropout.keras"
    base.mkdir()
    if any(_WITH_DROPOUT in flags for _, flags in step.before):
        subprocess.run([sys.executable, "-c", _MAKE_NETWORK, str(network)], check=True)
    for module, flags in step.before:
        given = [f"--model={network}" if flag == _WITH_DROPOUT else flag for flag in flags]
        run_to_the_end(module, (*given, f"--run_dir={base}"))
    shutil.copytree(base, whole)
    started = time.monotonic()
    run_to_the_end(step.module, (*step.flags, *_OFTEN, f"--run_dir={whole}"))
    return base, whole, time.monotonic() - started


def _interrupt(folder: Path, step: Killed, base: Path, whole: Path, name: str, moment: float) -> dict[str, Any]:
    """Sends a signal at a moment, checks the files, starts the step again and compares its result."""
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(base, run)
    flags = (*step.flags, *_OFTEN, f"--run_dir={run}")
    process = start(step.module, flags)
    process.join(moment)
    running = process.is_alive()
    if running:
        os.kill(process.pid, signal.Signals[f"SIG{name}"])
    process.join()
    wanted = {"KILL": (-signal.SIGKILL,), "TERM": (EXIT_CODE, 0)}[name] if running else (0,)
    faults = [] if process.exitcode in wanted else [f"exit code {process.exitcode}"]
    faults += _apart(_damaged, run) + _apart(_mixed, run, base, whole)
    again = start(step.module, flags)
    again.join()
    if again.exitcode:
        faults.append(f"resumed run: exit code {again.exitcode}")
    else:
        faults += _apart(_damaged, run) + _apart(_differences, run, whole)
    faults = [f"{name} after {moment:.2f} s: {fault}" for fault in faults]
    print(f"{name} after {moment:.2f} s: {'; '.join(faults) or 'as if nothing had happened'}", flush=True)
    return {"before_the_end": running, "faults": faults}


def _apart(look: Callable[..., list[str]], *folders: Path) -> list[str]:
    """Looks at files in a process of its own: TensorFlow's threads in this one would stop the commands."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        return pool.submit(look, *folders).result()


def _damaged(run: Path) -> list[str]:
    """Files of a run that aren't whole."""
    return [f"{path.relative_to(run)} is damaged" for path in _files(run) if not is_whole(path)]


def _mixed(run: Path, base: Path, whole: Path) -> list[str]:
    """Whether exported files are neither all the earlier nor all the new ones, after the next command's recovery."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "export"
        if (run / "export").is_dir():
            shutil.copytree(run / "export", copy)
        put_back(copy)
        found, earlier, new = map(_exported, (copy, base / "export", whole / "export"))
        others = [_unlike(found, earlier), _unlike(found, new)]
    if not all(others):
        return []
    return [f"the export is neither the earlier one ({', '.join(others[0])}) nor the new one ({', '.join(others[1])})"]


def _exported(export: Path) -> dict[str, Path]:
    """Exported files by name, but for what is said of them, which has times."""
    found = {str(path.relative_to(export)): path for path in _files(export) if path.suffix != ".json"}
    return {name: path for name, path in found.items() if _matters(name)}


def _unlike(found: dict[str, Path], wanted: dict[str, Path]) -> list[str]:
    """Names of the files that one has and the other hasn't, or that aren't the same."""
    return [
        name
        for name in sorted(found.keys() | wanted.keys())
        if name not in found or name not in wanted or not is_same(found[name], wanted[name], {})
    ]


def _files(run: Path) -> Iterator[Path]:
    for path in sorted(run.rglob("*")):
        # Scratch folders of interrupted writes are removed by the next command.
        scratch = any(part.startswith(PARTIAL_PREFIX) for part in path.relative_to(run).parts)
        if path.is_file() and not scratch:
            yield path


def _differences(run: Path, whole: Path) -> list[str]:
    """What differs from the uninterrupted run, apart from times."""
    found, wanted = ({str(path.relative_to(one)): path for path in _files(one)} for one in (run, whole))
    found, wanted = ({name: path for name, path in one.items() if _matters(name)} for one in (found, wanted))
    differing = [f"{name} is {'missing' if name in wanted else 'left over'}" for name in found.keys() ^ wanted.keys()]
    return differing + [
        f"{name} differs"
        for name in found.keys() & wanted.keys()
        if not is_same(found[name], wanted[name], {str(run): str(whole)})
    ]


def _matters(name: str) -> bool:
    # Logs go on in a further file; the page and the latencies hold times.
    # A killed process leaves its lock, which is in nobody's way.
    return (
        Path(name).name != LOCK
        and not name.startswith("logs/")
        and "/logs/" not in name
        and not name.endswith((".html", "latency.json"))
    )


def _table() -> Iterator[str]:
    yield ""
    yield "| step | seconds | killed (before its end) | faults | SIGTERM (before its end) | faults |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for name in STEPS:
        if _record(name).exists():
            record = read_json(_record(name))
            cells = [record.get(each, _NONE) for each in ("KILL", "TERM")]
            shown = (f"{one['moments']} ({one['before_the_end']}) | {len(one['faults'])}" for one in cells)
            yield f"| {name} | {record['seconds']} | {' | '.join(shown)} |"
    yield ""


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=lambda text: text.split(","), default=list(STEPS), help="comma-separated steps")
    parser.add_argument("--moments", type=int, default=20, help="moments for each step and signal")
    parser.add_argument("--signals", type=lambda text: text.split(","), default=["KILL", "TERM"], help="KILL, TERM")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    parser.add_argument("--table", action="store_true", help="only makes the table from what is kept")
    options = parser.parse_args()
    if unknown := [*{*options.steps} - STEPS.keys(), *{*options.signals} - {"KILL", "TERM"}]:
        parser.error(f"unknown: {', '.join(unknown)}")
    return options


if __name__ == "__main__":
    main()

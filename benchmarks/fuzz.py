"""Gives commands random bad input, and checks that each ends with a clear error.

    python -m benchmarks.fuzz [--cases=5000] [--seed=0] [--kinds=flags,json,...] [--only=SEED]

A small network is trained, made smaller and exported. Then each case damages something: a flag, a flag file, a file of
the run, a shape, a model file, an image, a table, or measured latencies. It is cut, some of its bytes or values are
replaced, or parts are repeated or removed. A command that reads it must end in time with the exit code 0 or 1, and
print no traceback; after an error, every other file of the run must be as before. Cases that fail are listed with their
seeds. `--only` runs a single seed again and shows what it prints. Exits with 1 if any case failed.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.commands import import_all, run_to_the_end, start
from benchmarks.damage import damage, damage_file, noise
from tas_tf.cli.commands import COMMANDS
from tas_tf.cli.table import OPTIONS

#: Distance between the first seeds of consecutive runs.
SEEDS_APART = 1_000_000
#: Seconds after which a command counts as hanging. Those that do something take a few.
_PATIENCE = 180
_FLAGS = Path(__file__).parents[1] / "flags"
_COMMON = (
    *("--dataset=digits", "--train_limit=200", "--batch_size=32", "--preprocess=standardise", "--test_limit=32"),
    *("--proposals=2", "--student_epochs=1", "--progress=none", "--latency_rounds=2", "--formats=fp32"),
)
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


@dataclass(frozen=True)
class Base:
    """What cases damage copies of.

    Args:
        folder: The folder of all that follows.

    Attributes:
        run: A finished run.
        model: The user's network.
        latencies: Measured latencies of it.
        photos: A class folder.
        table: A table of images and labels.
    """

    folder: Path

    def __post_init__(self) -> None:
        paths = {"run": "run", "model": "tiny.keras", "latencies": "run/probe/latency.json"}
        for name, path in {**paths, "photos": "photos", "table": "photos/labels.csv"}.items():
            object.__setattr__(self, name, self.folder / path)

    def within(self, folder: Path) -> Base:
        """A copy in another folder."""
        shutil.copytree(self.folder, folder)
        return Base(folder)


#: Damages something in a copy; returns the command, and what was damaged.
Kind = Callable[[random.Random, Base], tuple[str, list[str], Path | None]]


def main() -> None:
    options = _parse()
    import_all(command.module for command in COMMANDS.values())
    with tempfile.TemporaryDirectory() as folder:
        base = _prepare(Path(folder) / "base")
        if options.only is not None:
            fault, out = _case(options.only, base, Path(folder) / "case", options.kinds)
            print(out, fault or "no fault", sep="\n")
            sys.exit(fault is not None)
        first, counts, faults, started = SEEDS_APART * options.seed, Counter(), {}, time.monotonic()
        for seed in range(first, first + options.cases):
            fault, _ = _case(seed, base, Path(folder) / "case", options.kinds)
            counts[_kind(seed, options.kinds)] += 1
            if fault is not None:
                faults[seed] = fault
                print(f"seed {seed}: {fault}", flush=True)
            if (seed - first + 1) % 100 == 0:
                print(f"{seed - first + 1} cases, {time.monotonic() - started:.0f} s, {len(faults)} failed", flush=True)
    shown = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    print(f"{options.cases} cases ({shown}), {time.monotonic() - started:.0f} s, {len(faults)} failed")
    sys.exit(bool(faults))


def _kind(seed: int, kinds: list[str]) -> str:
    return random.Random(seed).choice(kinds)


def _case(seed: int, base: Base, folder: Path, kinds: list[str]) -> tuple[str | None, str]:
    """Runs a case; returns what is wrong with its end, if anything, and what the command printed."""
    shutil.rmtree(folder, ignore_errors=True)
    copy, chance = base.within(folder), random.Random(seed)
    name = chance.choice(kinds)
    module, flags, damaged = KINDS[name](chance, copy)
    before, printed = _contents(copy.folder, damaged), folder.with_suffix(".txt")
    process = start(module, flags, printed)
    process.join(_PATIENCE)
    hangs = process.is_alive()
    if hangs:
        process.kill()
        process.join()
    out = printed.read_text(errors="replace")
    asked = f"{name}: {module} {' '.join(flag[:100] for flag in flags)}" + (f" ({damaged.name})" if damaged else "")
    return _fault(process.exitcode, hangs, out, before, copy, damaged, asked), f"{asked}\n{out}"


def _fault(
    code: int, hangs: bool, out: str, before: dict[str, bytes], copy: Base, damaged: Path | None, asked: str
) -> str | None:
    if hangs:
        return f"hangs: {asked}"
    if "Traceback (most recent call last)" in out or code not in (0, 1):
        return f"exit code {code}, {out.strip().splitlines()[-1][:200] if out.strip() else ''}: {asked}"
    if code == 1 and "error: " not in out:
        return f"no error is told: {asked}"
    after = _contents(copy.folder, damaged)
    if code == 1 and (
        changed := [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
    ):
        return f"an error changed {', '.join(sorted(changed)[:5])}: {asked}"
    # Event files of the results have other names each time that a report is written.
    if lost := sorted(name for name in before.keys() - after.keys() if "logs/results/" not in name):
        return f"lost {', '.join(lost[:5])}: {asked}"
    return None


def _contents(folder: Path, damaged: Path | None) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path != damaged)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def _flags(chance: random.Random, base: Base) -> tuple[str, list[str], None]:
    flag = chance.choice([option.flag for option in OPTIONS if option.flag not in ("dry_run", "run_dir", "json")])
    text = chance.choice(_TEXTS) if chance.random() < 0.7 else noise(chance)
    given = [f"--model={base.model}", *_COMMON, f"--{flag}={text}"]
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
    plans = [] if module in ("trainers.report", "export.student") else [f"--model={base.model}", *_COMMON, "--dry_run"]
    return module, [f"--run_dir={base.run}", *plans], path


def _shapes(chance: random.Random, base: Base) -> tuple[str, list[str], Path]:
    path = Path(shutil.copy(base.run / "search" / "shape.json", base.folder / "shape.json"))
    damage_file(chance, path)
    given = [f"--run_dir={base.folder / 'new'}", f"--teacher_from={base.run}", *_COMMON, f"--shape={path}", "--dry_run"]
    return "trainers.distill", given, path


def _models(chance: random.Random, base: Base) -> tuple[str, list[str], Path]:
    path = base.model
    if chance.random() < 0.3:
        path = base.folder / "tiny.h5"
    damage_file(chance, path)
    return "trainers.describe", [str(path)], path


def _images(chance: random.Random, base: Base) -> tuple[str, list[str], Path]:
    path = chance.choice([one for one in sorted(base.photos.rglob("*")) if one.is_file() and one.suffix != ".csv"])
    damage_file(chance, path)
    skip = ["--skip_broken"] if chance.random() < 0.5 else []
    given = [f"--model={base.model}", "--train_model", *_COMMON, f"--dataset=folder:{base.photos}", "--image_size=8"]
    limits = ["--train_limit=24", "--batch_size=4", f"--run_dir={base.folder / 'new'}"]
    return "trainers.teacher", [*given, *limits, *skip, "--dry_run"], path


def _tables(chance: random.Random, base: Base) -> tuple[str, list[str], Path]:
    damage_file(chance, base.table)
    given = [f"--model={base.model}", *_COMMON, f"--dataset=csv:{base.table}", "--train_limit=24", "--batch_size=4"]
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
    "shapes": _shapes,
    "models": _models,
    "images": _images,
    "tables": _tables,
    "latencies": _latencies,
}


def _prepare(folder: Path) -> Base:
    """Makes all that cases damage."""
    base = Base(folder)
    folder.mkdir()
    subprocess.run([sys.executable, "-c", _MAKE_MODEL, str(base.model), str(folder / "tiny.h5")], check=True)
    run_to_the_end("trainers.pipeline", (f"--model={base.model}", *_COMMON, f"--run_dir={base.run}"))
    run_to_the_end("trainers.probe", (f"--run_dir={base.run}",))
    subprocess.run([sys.executable, "measure.py"], cwd=base.run / "probe", check=True, stdout=subprocess.DEVNULL)
    images, rows = np.random.default_rng(0), ["file,label"]
    for label in range(10):
        for number in range(4):
            path = base.photos / str(label) / f"{number}.{'png' if number % 2 else 'jpg'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images.integers(0, 255, (8, 8), "uint8")).save(path)
            rows.append(f"{label}/{path.name},{label}")
    base.table.write_text("\n".join(rows) + "\n")
    return base


_MAKE_MODEL = """
import sys
import keras
from keras import layers
from tas_tf.data.task import Task

keras.utils.set_random_seed(0)
images = keras.Input((8, 8, 1))
x = layers.Activation("relu")(layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same")(images)))
for _ in range(2):
    y = layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same", use_bias=False)(x))
    x = layers.Activation("relu")(layers.Add()([x, y]))
outputs = layers.Dense(10, "softmax")(layers.GlobalAveragePooling2D()(x))
model = keras.Model(images, outputs, name="tiny")
model.compile("adam", "sparse_categorical_crossentropy")
dataset, steps = Task.load("digits").training(32)
model.fit(dataset(0), epochs=6, steps_per_epoch=steps, verbose=0)
for path in sys.argv[1:]:
    model.save(path)
"""


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

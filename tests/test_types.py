"""Types of the public names, as a user's type checker sees them."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import tas_tf

pytest.importorskip("mypy", reason="`make install` installs it")

ROOT = Path(__file__).parents[1]
GOOD = """
import keras
import tas_tf

model: keras.Model = keras.models.load_model("mine.keras")
train = keras.utils.image_dataset_from_directory("photos")
description: tas_tf.Description = tas_tf.describe(model)
result: tas_tf.Compressed = tas_tf.compress(
    model,
    train,
    (train, train),
    budget="macs:0.5",
    race={"proposals": 4},
    training=tas_tf.TrainSettings(epochs=3),
    augment=tas_tf.Augmentation(pad_crop=4, flip=True),
)
accuracy: float = result.student_metrics["accuracy"]
space = tas_tf.SearchSpace.from_model(model)
counts: tuple[int, ...] = space.units[0].candidates
name = tas_tf.export_tflite(result.student, "small.tflite", format="int8", calibration=train).name
error: type[Exception] = tas_tf.UserError
version: str = tas_tf.__version__
"""
#: As for an installed package, errors inside it aren't the user's. Large packages are left out to save time.
SETTINGS = """
[mypy]
ignore_missing_imports = True
follow_imports = silent
[mypy-numpy.*,matplotlib.*,PIL.*,rich.*,h5py.*,scipy.*,tensorboard.*]
follow_imports = skip
"""
#: Mistakes, each with the kind of the error.
BAD = {
    "tas_tf.compress(None, (), (), budget=3.5)": "arg-type",
    'tas_tf.compress(None, (), (), "macs:0.5", "fast")': "call-arg",
    "tas_tf.compress(None, (), (), epochs=3)": "call-arg",
    "tas_tf.compres(None, (), ())": "attr-defined",
    "tas_tf.describe(None).macs_of_all": "attr-defined",
    'tas_tf.TrainSettings(epochs="three")': "arg-type",
    "tas_tf.TrainSettings(epoch=3)": "call-arg",
    'tas_tf.export_tflite(None, "x", format=8)': "arg-type",
    'number: int = tas_tf.load_network("resnet20", image_size="32")': "arg-type",
}


def errors(program: Path) -> list[tuple[int, str]]:
    """Line and kind of each error in a program that imports this package, without the settings of our own check."""
    settings = program.with_name("mypy.ini")
    settings.write_text(SETTINGS)
    command = [sys.executable, "-m", "mypy", f"--config-file={settings}", f"--cache-dir={program.parent}", str(program)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == ""
    found = re.findall(r"^\S*program\.py:(\d+): error: .*\[([\w-]+)\]$", done.stdout, re.MULTILINE)
    assert len(found) == done.stdout.count(": error: "), done.stdout
    return [(int(line), kind) for line, kind in found]


def test_right_calls_pass_and_mistakes_are_found(tmp_path):
    program = tmp_path / "program.py"
    program.write_text("\n".join([GOOD, *BAD]))
    first = GOOD.count("\n") + 2
    assert errors(program) == [*enumerate(BAD.values(), first)]


def test_the_package_says_that_it_has_types():
    assert (ROOT / "tas_tf" / "py.typed").exists()


def test_public_modules_are_checked_strictly():
    (strict,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]["overrides"]
    assert strict["disallow_untyped_defs"]
    assert set(strict["module"]) >= {f"tas_tf.{home}" for home in tas_tf._HOMES.values()}

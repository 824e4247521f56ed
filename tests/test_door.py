"""Public names of `tas_tf`: how they load, their examples, and the README's code as written."""

import ast
import inspect
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest

import tas_tf
from tas_tf.compression import defaults
from tas_tf.recipes import RECIPES
from tests.digits import tiny_task
from tests.networks import count_macs

ROOT = Path(__file__).parents[1]
WANTED = {
    *(
        "compress",
        "describe",
        "SearchSpace",
        "Shape",
        "Budget",
        "search",
        "build_student",
        "inherit_weights",
        "distill",
    ),
    *(
        "SearchSettings",
        "LatencySettings",
        "TrainSettings",
        "Augmentation",
        "load_network",
        "register_layer",
        "export_saved_model",
        "export_tflite",
    ),
    *("read_metadata", "UserError", "__version__"),
}


def readme_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_newcomers_find_the_quick_start_first():
    text = (ROOT / "README.md").read_text()
    assert 0 <= text.find("docs/QUICKSTART.md") < min(text.index("\n|"), text.index("\n## "))


def test_it_opens_without_tensorflow():
    program = (
        "import sys, tas_tf; assert set(tas_tf.__all__) <= set(dir(tas_tf)); tas_tf.UserError; tas_tf.__version__; "
        "print([name for name in ('tensorflow', 'keras', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_name_is_there_and_no_room_hides_one():
    assert not WANTED - set(tas_tf.__all__)
    rooms = {path.stem for path in (ROOT / "tas_tf").iterdir()}
    assert rooms.isdisjoint(tas_tf.__all__)
    for name in tas_tf.__all__:
        assert not inspect.ismodule(getattr(tas_tf, name)), name
    with pytest.raises(AttributeError, match="no attribute 'compres'"):
        _ = tas_tf.compres


def test_what_tools_read_is_what_is_loaded():
    """Type checkers and editors see the same names and modules as users."""
    tree = ast.parse((ROOT / "tas_tf/__init__.py").read_text())
    (seen,) = (node for node in tree.body if isinstance(node, ast.If))
    homes = {alias.name: node.module for node in seen.body for alias in node.names}
    assert homes == {name: f"tas_tf.{home}" for name, home in tas_tf._HOMES.items()}
    assert set(tas_tf.__all__) == {*homes, "UserError", "__version__"}


@pytest.mark.parametrize("name", sorted({*tas_tf.__all__} - {"__version__"}))
def test_every_name_has_an_example_that_runs(name):
    """Either doctest runs it, or its lines are in the README, which the test below runs."""
    text = inspect.getdoc(getattr(tas_tf, name))
    fenced = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert fenced or ">>> import tas_tf" in text
    lines = [re.sub(r" +#.*", "", line) for block in readme_blocks() for line in block.splitlines()]
    for block in fenced:
        assert set(textwrap.dedent(block).split("\n")) <= {*lines, ""}


@pytest.mark.filterwarnings("ignore:The .* distributions have not converged:UserWarning")
def test_the_readme_as_written(trained_tiny, tmp_path, monkeypatch, capfd):
    """From a user's file and arrays to files that compute what the student does; with fewer epochs than by default."""
    brief = {**RECIPES["balanced"], "race.proposals": 2, "race.rate_factors": (0.5,), "student.epochs": 6}
    monkeypatch.setitem(RECIPES, "balanced", brief)
    monkeypatch.setattr(defaults, "EPOCHS", 2)
    task = tiny_task()
    datasets = (task.plain(task.indices), task.test())
    train, validation = (tuple(map(np.concatenate, zip(*data.as_numpy_iterator(), strict=True))) for data in datasets)
    monkeypatch.chdir(tmp_path)
    keras.models.load_model(trained_tiny).save("mine.keras")
    first, files, parts = readme_blocks()
    names = {"train": train, "validation": validation, "images": train[0][:100]}
    exec(first, names)
    assert "smallest reachable" in capfd.readouterr().out
    student = keras.models.load_model("student.keras", compile=False)
    assert count_macs(student) <= count_macs(names["model"]) / 2
    images = validation[0]
    expected = np.asarray(student(images))
    int8 = tas_tf.TFLiteModel("student.tflite").predict(images)
    assert (int8.argmax(1) == expected.argmax(1)).mean() > 0.9
    # From the model's weights, and on few images, the student is nearly as good as the model.
    assert names["result"].student_metrics["accuracy"] > names["result"].teacher_metrics["accuracy"] - 0.15

    exec(files, names)
    np.testing.assert_allclose(tas_tf.TFLiteModel("student_fp32.tflite").predict(images), expected, atol=1e-4)
    np.testing.assert_allclose(names["outputs"], np.asarray(student(names["images"])), atol=1e-4)
    assert capfd.readouterr().out.splitlines()[-1] == str([str(number) for number in range(10)])
    assert Path("saved_model/saved_model.pb").exists()

    exec(parts, names)
    names["found"].shape.check(names["space"])
    trained = names["trained"]
    assert count_macs(trained.model) == trained.metrics["macs"] <= count_macs(names["model"]) / 2
    assert capfd.readouterr().out.splitlines()[-1] == f"{trained.metrics['accuracy']} {trained.metrics['macs']}"

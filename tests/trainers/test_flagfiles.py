"""The flag files in the repository: files that they name exist, and the one for CIFAR-100 runs, made smaller."""

import json
import re
from pathlib import Path

import pytest
from absl import flags

from benchmarks.flagfile_steps import made_up, networks_flagfiles
from tas_tf.cli.options import FLAGS
from tas_tf.cost.budget import Budget
from tas_tf.cost.cost_model import CostModel
from tas_tf.published import PUBLISHED, shape_file
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.zoo.loading import load_network
from tests.commands import run_command
from tests.networks import count_macs
from trainers import pipeline, search

ROOT = Path(__file__).parents[2]

#: Overrides that make the path of the CIFAR flag files short: the flags themselves stay in force.
SHRUNK = [
    "--model=resnet8",
    "--budget=macs:0.5",
    "--batch_size=16",
    "--teacher_epochs=6",
    "--teacher_warmup=0",
    "--search_epochs=1",
    "--student_epochs=1",
    "--student_warmup=0",
    "--held_out_limit=32",
    "--calibration_batches=1",
    "--test_limit=32",
    "--formats=fp32",
    "--progress=none",
]
IMAGES = {"cifar10": (10, 32), "cifar100": (100, 32), "imagenet2012": (1000, 224)}


def values_of(flagfile: Path) -> dict[str, str]:
    """The last value of each flag in a flag file and the files that it includes; `true` for a flag without a value."""
    lines = flags.FLAGS.read_flags_from_files([f"--flagfile={flagfile}"], force_gnu=False)
    return {name: value or "true" for name, _, value in (line.lstrip("-").partition("=") for line in lines)}


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    """Flag files name each other by paths from there."""
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("flagfile", networks_flagfiles(), ids=lambda path: path.name)
def test_flags_are_known_and_the_command_is_on_top(flagfile):
    values = values_of(flagfile)
    known = set(FLAGS)
    assert {name for name in values if name not in known and name.removeprefix("no") not in known} == set()
    comment = flagfile.read_text().partition("\n--")[0]
    assert re.search(rf"python -m trainers\.(search|pipeline) --flagfile=flags/{flagfile.name}", comment)
    assert re.search(r"two steps at --batch_size=4 .* [\d.,]+ [MG]B", " ".join(comment.replace("#", "").split()))


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "imagenet"])
def test_the_papers_settings(name):
    values = values_of(ROOT / f"flags/{name}.cfg")
    on_cifar = name != "imagenet"
    assert {key: values[key] for key in ("lr", "momentum", "batch_size", "arch_lr", "arch_l2", "arch_betas")} == {
        "lr": "0.1",
        "momentum": "0.9",
        "batch_size": "256",
        "arch_lr": "1e-3",
        "arch_l2": "1e-3",
        "arch_betas": "0.5,0.999",
    }
    assert (values["temperature_start"], values["temperature_end"], values["num_drawn"]) == ("5", "0.1", "2")
    assert (values["cost_weight"], values["cost_driver"], values["tolerance"]) == ("2", "argmax", "0.05")
    assert (values["kd_alpha"], values["kd_temperature"]) == ("0.9", "4")
    assert "inherit" not in values  # from scratch, but for the filters of baselines
    assert (values.get("color_jitter"), values.get("lighting"), values.get("test_resize")) == (
        (None, None, None) if on_cifar else ("0.4,0.4,0.4,0.2", "0.1", "256")
    )
    assert values["l2"] == ("5e-4" if on_cifar else "1e-4")
    epochs = (values["search_epochs"], values.get("search_warmup", "0"), values["student_epochs"])
    assert epochs == (("600", "0", "300") if on_cifar else ("115", "5", "120"))
    assert ("pad_crop" in values, "random_resized_crop" in values, "flip" in values) == (on_cifar, not on_cifar, True)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "imagenet"])
def test_budgets_are_those_of_the_published_shapes(name):
    flagfile = ROOT / f"flags/{name}.cfg"
    values = values_of(flagfile)
    classes, size = IMAGES[values["dataset"]]
    network = load_network(values["model"], num_classes=classes, image_size=size)
    (published,) = re.findall(r"--shape=published/([\w-]+)", flagfile.read_text())
    shape = Shape.load(shape_file(f"published/{published}"))
    cost = CostModel(SearchSpace.from_model(network, units=shape.widths))
    assert PUBLISHED[published].network == values["model"]
    real = cost(shape)
    assert Budget.parse(values["budget"]).limit(cost.full) == pytest.approx(real, rel=0.01)


@pytest.mark.slow
def test_cifar100_runs_whole(tmp_path):
    """The search without a teacher, which is the project's command, then all other steps."""
    arguments = ["--flagfile=flags/cifar100.cfg", f"--run_dir={tmp_path}/run", f"--data_dir={tmp_path}/data", *SHRUNK]
    with made_up("cifar100", tmp_path / "data", num_examples=200):
        first = run_command(search, *arguments)
        assert first.code == 0, first
        assert not (tmp_path / "run/teacher").exists()
        *_, found, closing = [line for line in first.out.splitlines() if not line.startswith("warning")]
        metrics = json.loads((tmp_path / "run/search/metrics.json").read_text())
        assert found.startswith(f"Found: {metrics['shape_macs']:,} macs (")
        assert closing.endswith(
            "search/shape.json is ready. Next: python -m trainers.distill with the same flags "
            "(first python -m trainers.teacher: there is no teacher yet)."
        )
        whole = run_command(pipeline, *arguments)
        assert whole.code == 0, whole
        assert json.loads((tmp_path / "run/search/metrics.json").read_text()) == metrics  # not searched again
        again = run_command(search, *arguments)
    assert again.out.splitlines()[0] == found
    assert "is up to date. Next: python -m trainers.distill with the same flags.\n" in again.out
    assert "--dataset=cifar100" in (tmp_path / "run/flags.cfg").read_text().split()
    student = load_network(str(tmp_path / "run/student/model.keras"))
    assert student.output_shape == (None, 100)
    assert count_macs(student) == metrics["shape_macs"] <= metrics["budget_macs"]
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert report["student"]["macs"] == metrics["shape_macs"]
    assert (tmp_path / "run/export/fp32.tflite").is_file()

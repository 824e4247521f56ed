"""The figures that `--dry_run` shows."""

import re

import pytest

from tas_tf.data.task import Task
from tas_tf.deploy.errors import ExportError
from trainers import pipeline, search, teacher


@pytest.mark.usefixtures("untimed")
def test_iterations_and_states(command, interrupted):
    outcome = command(
        pipeline, f"--run_dir={interrupted.path}", *interrupted.flags, "--dry_run", "--rivals=uniform,full_kd"
    )
    assert outcome.code == 0, outcome
    rows = rows_of(outcome.out)
    task = Task.load("digits", train_limit=200)
    plain, halves = task.training(32)[1], task.searching(32)[1]
    assert rows["search"][:3] == ["up to date", "1", str(halves)]
    assert rows["student"][:3] == ["up to date", "1", str(plain)]
    assert rows["rival uniform"][0] == "up to date"
    assert rows["rival full_kd"][:3] == ["runs", "1", str(plain)]
    assert rows["teacher"][0] == "up to date"
    assert re.search(r"Unpruned: [\d,]+ MACs\. Budget: [\d,]+ macs\.", outcome.out)


def rows_of(text: str) -> dict[str, list[str]]:
    """The rows of the table by step."""
    return {
        cells[0]: cells[1:]
        for line in text.splitlines()
        if len(cells := [cell.strip() for cell in re.split("[│┃]", line)[1:-1]]) == 6
    }


@pytest.mark.usefixtures("untimed")
def test_what_a_race_and_random_shapes_train(command, trained_tiny, tmp_path):
    flags = [f"--run_dir={tmp_path}/run", f"--model={trained_tiny}", "--train_limit=200", "--preprocess=standardise"]
    flags += ["--batch_size=32", "--student_epochs=40", "--dry_run"]
    trained = ["--rivals=random", "--random_shapes=4", "--random_epochs=10"]
    trained += ["--searched=4", "--search_epochs=3", "--search_warmup=0", "--proposals=2"]
    rows = rows_of(command(pipeline, *flags, *trained).out)
    task = Task.load("digits", train_limit=200)
    halves, of_half = task.searching(32)[1], task.weights_part(0.5).training(32)[1]
    assert rows["search of race"][:3] == ["runs", "3", str(3 * halves)]
    assert rows["shapes of rival random"][:3] == ["runs", "40", str(40 * of_half)]
    assert list(rows).index("search of race") < list(rows).index("race")
    assert list(rows).index("shapes of rival random") < list(rows).index("rival random")
    # The four shapes that are searched and the uniform one take part.
    five = rows_of(command(pipeline, *flags, "--proposals=5").out)
    assert rows["race"][:3] == five["race"][:3]
    assert not {"search of race", "shapes of rival random"} & set(five)


@pytest.mark.parametrize("module", [pipeline, search, teacher], ids=lambda module: module.__name__)
@pytest.mark.parametrize("flags", [[], ["--dry_run"]], ids=["run", "plan"])
def test_what_can_not_become_files_is_neither_planned_nor_trained(
    module, flags, command, trained_tiny, tiny_flags, tmp_path, monkeypatch
):
    def refuse(network, **options):
        raise ExportError("no files")

    monkeypatch.setattr("tas_tf.runs.workspace.check_deployable", refuse)
    outcome = command(module, f"--run_dir={tmp_path}/run", f"--model={trained_tiny}", *tiny_flags, *flags)
    assert outcome.code == 1, outcome
    assert outcome.err == "error: no files\n"
    assert not (tmp_path / "run").exists()


def test_a_network_is_converted_once(command, trained_tiny, tiny_flags, tmp_path, monkeypatch):
    checked, trained = [], []

    def interrupt(*arguments, **options):
        trained.append(arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr("tas_tf.runs.workspace.check_deployable", lambda network, **options: checked.append(network))
    monkeypatch.setattr("tas_tf.pipeline.searched_shapes.run_search", interrupt)
    outcome = command(pipeline, f"--run_dir={tmp_path}/run", f"--model={trained_tiny}", *tiny_flags)
    assert outcome.code == 130, outcome
    assert (len(checked), len(trained)) == (1, 1)


@pytest.mark.usefixtures("untimed")
def test_a_plan_refuses_what_the_run_would(command, trained_tiny, tmp_path):
    given = [f"--run_dir={tmp_path / 'run'}", f"--model={trained_tiny}", "--inherit=supernet", "--rivals=uniform"]
    outcome = command(pipeline, *given, "--dry_run")
    assert outcome.code == 1
    assert "`--inherit=supernet` works only for the shape found" in outcome.err


@pytest.mark.usefixtures("untimed")
def test_a_plan_looks_only_at_budgets_that_the_command_uses(command, trained_tiny, tmp_path):
    given = [f"--run_dir={tmp_path / 'run'}", f"--model={trained_tiny}", "--budget=macs:0.01", "--dry_run"]
    given.append("--preprocess=standardise")
    outcome = command(teacher, *given)
    assert outcome.code == 0, outcome
    assert "Budget" not in outcome.out
    assert command(pipeline, *given).code == 1


def test_the_memory_of_each_training_is_estimated(command, trained_tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("tas_tf.training.memory.machine_memory", lambda: (1e6, "this machine"))
    given = [
        f"--run_dir={tmp_path / 'run'}",
        f"--model={trained_tiny}",
        "--recipe=paper",
        "--batch_size=32",
        "--dry_run",
    ]
    outcome = command(pipeline, *given, "--budget=macs:0.5")
    assert outcome.code == 0, outcome
    sizes = dict(re.findall(r"│ (teacher|search|student) .*│\s+([\d,]*)(?: MB)? │", outcome.out))
    assert sizes["teacher"] == ""  # taken over
    assert int(sizes["search"]) > int(sizes["student"]) > 0
    assert re.search(r"training step: at most \d+ MB \(program .*\), at search\.", outcome.out)
    assert re.search(r"warning: A training step needs about \d+ MB .* `--accumulate` and `--recompute`", outcome.out)


def test_recomputing_is_refused_where_a_fine_tuning_for_8_bits_follows(command, trained_tiny, tmp_path):
    given = [f"--run_dir={tmp_path / 'run'}", f"--model={trained_tiny}", "--recompute", "--formats=qat_int8"]
    outcome = command(pipeline, *given)
    assert outcome.code == 1
    assert "`--recompute` isn't supported by the fine-tuning for qat_int8" in outcome.err
    assert not (tmp_path / "run").exists()

"""How many test images files are scored on, and what is measured again."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tas_tf.cost.budget import Budget
from tas_tf.data.task import Task
from tas_tf.files import read_json, write_json
from tas_tf.pipeline import exporting, kept_latency
from tas_tf.pipeline.exporting import ExportStep
from tas_tf.runs.config import RunConfig
from tas_tf.runs.records import read_result


@pytest.fixture
def limit_of(tmp_path):
    """Returns the limit for a folder of six test images of 8x8x1, and what the user is told."""
    for name in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / name).mkdir(parents=True)
        for number in range(3):
            Image.fromarray(np.full((8, 8), 30 * number, np.uint8)).save(tmp_path / name / f"{number}.png")

    def ask(*, streamed: bool, given: int | None = None) -> tuple[int | None, list[str]]:
        task = Task.load(f"folder:{tmp_path}", image_size=8, streamed=streamed)
        said = []
        config = SimpleNamespace(export=SimpleNamespace(test_limit=given))
        return ExportStep(SimpleNamespace(config=config, task=task, say=said.append))._test_limit(), said

    return ask


def test_all_images_as_long_as_they_fit(limit_of):
    assert limit_of(streamed=False) == (None, [])
    assert limit_of(streamed=True) == (5000, [])
    assert limit_of(streamed=True, given=2) == (2, [])


def test_streamed_images_are_limited_by_their_size_and_that_is_said(limit_of, monkeypatch):
    monkeypatch.setattr(exporting, "_STREAMED_TEST_BYTES", 4 * 64 * 5)
    limit, (said,) = limit_of(streamed=True)
    assert limit == 5
    assert said.startswith("export: files are scored on 5 of 6 test images")


def test_an_undecided_latency_is_measured_again_and_the_record_knows_it(tmp_path, monkeypatch):
    config = RunConfig(run_dir=str(tmp_path), budgets=(Budget.parse("latency:0.5"),))
    run, timed, said = config.run, [], []
    search = {"budget_kind": "latency", "budget_latency": 0.5, "latency_full_ms": 1.0}
    write_json(run.metrics("search"), {**search, "latency_format": "fp32", "latency_threads": 1})
    record = run.step("export", settings={}, outputs=[run.metrics("export"), run.latency_json])
    record.begin()
    write_json(run.metrics("export"), {"fp32": {}})
    write_json(run.latency_json, {"share": 0.5, "kept": None})
    record.finish()
    before = read_json(record.digest_path)

    def time_files(files, threads):
        timed.extend(files)
        return [1.0, 0.4], [1.0, 0.4]

    monkeypatch.setattr(kept_latency, "time_files", time_files)
    workspace = SimpleNamespace(config=config, keeps_fresh=False, say=lambda text, **style: said.append(text))
    step = ExportStep(workspace)
    step._formats = ["fp32"]
    assert step._run(record)
    assert timed == [run.export_dir / "teacher" / "fp32.tflite", run.export_dir / "fp32.tflite"]
    assert (read_result(run.latency_json)["kept"], read_result(run.metrics("export"))) == (True, {"fp32": {}})
    after = read_json(record.digest_path)
    assert before["files"].pop("latency.json") != after["files"].pop("latency.json")
    assert before == after
    assert not step._run(record)  # decided now
    assert (len(timed), len(said)) == (2, 1)

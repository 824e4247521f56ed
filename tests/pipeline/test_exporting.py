"""How many test images files are scored on."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tas_tf.data.task import Task
from tas_tf.pipeline import exporting
from tas_tf.pipeline.exporting import ExportStep


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

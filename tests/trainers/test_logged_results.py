"""What TensorBoard shows of a finished run, read as its own plugins read it."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from tests.events import read_events, read_settings
from trainers import report


def read(folder):
    """Values by tag of the only event file in a folder."""
    assert len(list(folder.glob("events.*"))) == 1
    return {tag: value for tag, ((_, value),) in read_events(folder).items()}


def test_every_network_is_a_row_with_its_settings_and_figures(finished):
    found = json.loads((finished / "report.json").read_text())
    names = {path.name for path in (finished / "logs/results").iterdir()}
    assert names == {"teacher", "student", *found["rivals"]}
    for name in names:
        values, settings = read(finished / "logs/results" / name), read_settings(finished / "logs/results" / name)
        assert settings["network"] == name
        assert (settings["budget"], settings["data.dataset"]) == (found["budget"], "digits")
        assert float(values["test/accuracy"]) == pytest.approx(found[name]["accuracy"])
        assert float(values["cost/macs"]) == pytest.approx(found[name]["macs"])
        for format, file in found[name]["tflite"].items():
            assert float(values[f"{format}/latency_ms"]) == pytest.approx(file["latency_ms"])
            assert float(values[f"{format}/bytes"]) == pytest.approx(file["bytes"])
    assert any("." in name and name not in ("data.dataset", "data.seed") for name in settings)  # what isn't the default


def test_the_student_has_its_command_and_pictures(command, finished):
    (finished / "logs/results/earlier").mkdir()
    for _ in range(2):  # a second report takes the place of the first
        assert command(report, f"--run_dir={finished}").code == 0
        values = read(finished / "logs/results/student")
    assert not (finished / "logs/results/earlier").exists()
    text = values["run/command"].item().decode()
    assert json.loads((finished / "report.json").read_text())["command"] in text
    for tag in ("behaviour/confusion", "behaviour/only_the_teacher_is_right"):
        width, height, encoded = values[tag].tolist()
        image = Image.open(io.BytesIO(encoded))
        assert image.size == (int(width), int(height))
        assert np.ptp(np.asarray(image)) > 100


@pytest.mark.slow
def test_tensorboard_itself_shows_curves_and_pictures(finished, tmp_path):
    """In a browser, since only that shows whether TensorBoard takes the layout."""
    pytest.importorskip("selenium", reason="needs Selenium, of the contributors' part of requirements.txt")
    from docs.tools import tensorboard
    from docs.tools.browser import missing

    if reason := missing():
        pytest.skip(reason)
    for path in tensorboard.take(finished, tmp_path):
        with Image.open(path) as picture:
            assert picture.size == (1400, 1000)
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 50

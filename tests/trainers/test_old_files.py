"""A network in a file of Keras 2, from the command line."""

import keras
import numpy as np
import pytest

from tas_tf.qat.twin import make_twin
from tests.commands import run_command
from trainers import teacher


@pytest.fixture
def old_file(tmp_path, trained_tiny):
    path = tmp_path / "old.keras"
    make_twin(keras.models.load_model(trained_tiny)).save(path)
    return path


def test_an_old_file_is_converted_once_and_taken_over(old_file, tmp_path, trained_tiny):
    arguments = [f"--run_dir={tmp_path}/run", f"--model={old_file}", "--train_limit=200", "--progress=none"]
    outcome = run_command(teacher, *arguments)
    assert outcome.code == 0, outcome
    assert outcome.out.count("The network was converted to Keras 3") == 1
    assert "suits" in outcome.out  # the preprocessing was found, which needs the network too
    found = keras.models.load_model(tmp_path / "run/teacher/model.keras")
    assert found.name == "old"
    images = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype("float32")
    expected = keras.models.load_model(trained_tiny)(images)
    np.testing.assert_allclose(keras.ops.softmax(found(images)), expected, atol=1e-5)

"""The preprocessing that a trained network needs, found by its accuracy on training images."""

from __future__ import annotations

import keras
import pytest
from keras import layers

from tas_tf.errors import UserError
from tas_tf.files import read_json
from tas_tf.runs.found_preprocessing import find_preprocessing
from tas_tf.space.space import SearchSpace
from tas_tf.training.evaluation import evaluate
from tas_tf.training.network import logits_of
from tas_tf.zoo.loading import load_file
from tests.commands import run_command
from tests.digits import tiny_network, tiny_task
from trainers import search, teacher


@pytest.fixture(scope="module")
def model(trained_tiny) -> keras.Model:
    return load_file(trained_tiny)


def test_the_kind_it_was_trained_with(model):
    space = SearchSpace.from_model(model)
    found = find_preprocessing(model, space, tiny_task())
    assert found.kind == "standardise"
    assert set(found.accuracies) == {"standardise", "none", "scale_0_1", "scale_-1_1"}  # grey images
    for kind, accuracy in found.accuracies.items():
        task = tiny_task(preprocess=kind)
        scores = evaluate(logits_of(model, space), task.plain(task.indices), task.objective)
        # 200 images, all of which are scored, but for the last batches.
        assert scores["accuracy"] == pytest.approx(accuracy, abs=0.03)


def test_pixels_for_a_network_that_scales_them_itself(model):
    """Standardised digits are about (pixel - 78) / 96."""
    pixels = keras.Input((8, 8, 1), name="raw")
    scaled = layers.Rescaling(1 / 95.8, -77.9 / 95.8, name="scale")(pixels)
    whole = keras.Model(pixels, model(scaled))
    found = find_preprocessing(whole, SearchSpace.from_model(whole), tiny_task())
    assert found.kind == "none"


def test_a_network_at_chance_is_refused():
    network = tiny_network()
    with pytest.raises(UserError, match=r"near chance level under every preprocessing. .*standardise 0\.\d+"):
        find_preprocessing(network, SearchSpace.from_model(network), tiny_task())


def test_classes_in_another_order_are_found_and_said(model):
    order = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    reordered = keras.models.clone_model(model)
    reordered.set_weights(model.get_weights())
    kernel, bias = reordered.get_layer("classifier").get_weights()
    reordered.get_layer("classifier").set_weights([kernel[:, order], bias[order]])
    with pytest.raises(UserError) as refused:
        find_preprocessing(reordered, SearchSpace.from_model(reordered), tiny_task())
    message = str(refused.value)
    assert f"With `preprocess`=standardise, outputs 0, 1, ... fit {', '.join(map(str, order))}: accuracy 0." in message
    assert message.endswith("Received: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9.")


def test_two_kinds_that_are_nearly_as_good_are_left_to_the_user(model):
    """Batch statistics undo any scale."""
    pixels = keras.Input((8, 8, 1), name="raw")
    scaled = layers.LayerNormalization(axis=(1, 2, 3), center=False, scale=False, name="per_image")(pixels)
    whole = keras.Model(pixels, model(scaled))
    whole.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    task = tiny_task()
    dataset, steps = task.training(50)
    whole.fit(dataset(0), epochs=12, steps_per_epoch=steps, verbose=0, shuffle=False)
    with pytest.raises(UserError, match=r"\w+ and \w+ suit the network nearly as well. Give the one"):
        find_preprocessing(whole, SearchSpace.from_model(whole), task)


def test_commands_find_it_say_it_and_keep_it(trained_tiny, tmp_path):
    flags = [f"--run_dir={tmp_path}/run", f"--model={trained_tiny}", "--train_limit=200", "--progress=none"]
    outcome = run_command(teacher, *flags, "--batch_size=32")
    assert outcome.code == 0, outcome.err
    assert f"--preprocess=standardise suits {trained_tiny}: accuracy " in outcome.out.replace("`", "")
    assert read_json(tmp_path / "run/teacher/metrics.json")["preprocess"] == "standardise"
    assert "--preprocess=standardise" in (tmp_path / "run/flags.cfg").read_text().splitlines()
    again = run_command(teacher, *flags, "--batch_size=32")
    assert "up to date" in again.out
    assert "suits" not in again.out
    other = run_command(
        search, f"--run_dir={tmp_path}/other", f"--teacher_from={tmp_path}/run", "--dry_run", *flags[2:]
    )
    assert "suits" not in other.out

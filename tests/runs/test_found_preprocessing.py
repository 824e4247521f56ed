"""The preprocessing that a trained network needs, found by its accuracy on training images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

from tas_tf.data.preprocessing import PREPROCESSING_KINDS
from tas_tf.data.resizing import RESIZE_WAYS
from tas_tf.data.task import Task
from tas_tf.errors import UserError
from tas_tf.files import read_json
from tas_tf.objectives.decisions import Multilabel
from tas_tf.objectives.regression import Regression
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
    found = find_preprocessing(model, space, {"squash": tiny_task()})
    assert found.kind == "standardise"
    assert set(found.scores) == {"standardise", "none", "scale_0_1", "scale_-1_1"}  # grey images
    for kind, accuracy in found.scores.items():
        task = tiny_task(preprocess=kind)
        scores = evaluate(logits_of(model, space), task.plain(task.indices), task.objective)
        # 200 images, all of which are scored, but for the last batches.
        assert scores["accuracy"] == pytest.approx(accuracy, abs=0.03)


def test_images_with_weights(model):
    """The order of classes is checked by the classes alone."""
    task = tiny_task()
    weights = {split: np.ones(len(task.source.labels(split)), np.float32) for split in ("train", "test")}
    weighed = replace(task, source=replace(task.source, split_weights=weights))
    space = SearchSpace.from_model(model)
    found = find_preprocessing(model, space, {"squash": weighed})
    assert found.scores == find_preprocessing(model, space, {"squash": task}).scores


def test_pixels_for_a_network_that_scales_them_itself(model):
    """Standardised digits are about (pixel - 78) / 96."""
    pixels = keras.Input((8, 8, 1), name="raw")
    scaled = layers.Rescaling(1 / 95.8, -77.9 / 95.8, name="scale")(pixels)
    whole = keras.Model(pixels, model(scaled))
    found = find_preprocessing(whole, SearchSpace.from_model(whole), {"squash": tiny_task()})
    assert found.kind == "none"


def test_a_network_at_chance_is_refused():
    network = tiny_network()
    with pytest.raises(UserError, match=r"near chance level under every preprocessing. .*standardise 0\.\d+"):
        find_preprocessing(network, SearchSpace.from_model(network), {"squash": tiny_task()})


@pytest.mark.parametrize("kinds", [PREPROCESSING_KINDS, PREPROCESSING_KINDS[::-1], ["standardise"]], ids=str)
def test_classes_in_another_order_are_found_and_said(model, kinds):
    """Under the kind that suits the order best, whichever is tried first; also if one kind alone is tried."""
    order = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    reordered = keras.models.clone_model(model)
    reordered.set_weights(model.get_weights())
    kernel, bias = reordered.get_layer("classifier").get_weights()
    reordered.get_layer("classifier").set_weights([kernel[:, order], bias[order]])
    with pytest.raises(UserError) as refused:
        find_preprocessing(reordered, SearchSpace.from_model(reordered), {"squash": tiny_task()}, kinds)
    message = str(refused.value)
    found = "With `preprocess`=standardise, outputs" if len(kinds) > 1 else "Outputs"
    assert f"{found} 0, 1, ... fit {', '.join(map(str, order))}: accuracy 0." in message
    assert message.endswith("Received: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9.")


@pytest.mark.slow
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
        find_preprocessing(whole, SearchSpace.from_model(whole), {"squash": task})


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


def draw_photos(root: Path, *, side: bool) -> None:
    """Wide photos of 12x36: stripes along or across, at the left border or in the middle, on grey with noise."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 60), ("test", 20)):
        for name in ("along", "across"):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.normal(128, 12, (12, 36))
                left = 0 if side else 12
                stripes = 90 * np.sign(np.arange(12) % 6 - 2.5)
                pixels[:, left : left + 12] += stripes[:, None] if name == "along" else stripes
                image = np.uint8(pixels.clip(0, 255))
                Image.fromarray(image).save(root / split / name / f"{number}.png")


def train_by_keras(root: Path, **options) -> keras.Model:
    """A small network as Keras's documentation trains it."""
    data = keras.utils.image_dataset_from_directory(
        root / "train", image_size=(12, 12), color_mode="grayscale", batch_size=20, seed=0, verbose=False, **options
    )
    keras.utils.set_random_seed(1)
    images = keras.Input((12, 12, 1), name="photo")
    x = layers.Rescaling(1 / 128, -1, name="scale")(images)
    x = layers.Conv2D(8, 3, activation="relu", name="first")(x)
    x = layers.Conv2D(8, 3, activation="relu", name="second")(x)
    model = keras.Model(images, layers.Dense(2, "softmax", name="top")(layers.Flatten(name="flat")(x)))
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    model.fit(data, epochs=6, verbose=0, shuffle=False)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("way", ["squash", "crop", "pad"])
def test_the_way_of_resizing_that_it_was_trained_with(tmp_path, way):
    draw_photos(tmp_path, side=way != "crop")
    options = {"squash": {}, "crop": {"crop_to_aspect_ratio": True}, "pad": {"pad_to_aspect_ratio": True}}
    model = train_by_keras(tmp_path, **options[way])
    streamed = Task.load(f"folder:{tmp_path}", image_size=12, streamed=True)
    tasks = {one: streamed.resized_as(one) for one in RESIZE_WAYS}
    found = find_preprocessing(model, SearchSpace.from_model(model), tasks)
    assert (found.resize, found.kind) == (way, "none")
    assert found.resized[way] > 0.95
    assert all(score < 0.9 for other, score in found.resized.items() if other != way)
    said = found.lines("it")[0]
    assert said.startswith(f"`resize`={way} suits it: accuracy {found.resized[way]:.3f} on training images")


@pytest.mark.slow
def test_where_ways_are_as_good_it_is_kerass(tmp_path):
    """The object fills the photo's height in the middle, and a network of any scale was trained."""
    draw_photos(tmp_path, side=False)
    model = train_by_keras(tmp_path)
    task = Task.load(f"folder:{tmp_path}", image_size=12, streamed=True)
    same = find_preprocessing(model, SearchSpace.from_model(model), {"squash": task, "crop": task, "pad": task})
    assert same.resize == "squash"


@pytest.mark.slow
def test_photos_whose_object_is_at_the_side(tmp_path):
    """The command finds the way of resizing, says it and keeps it; proportions that fit leave nothing to find.

    The default batch is larger than the data, which doesn't matter for a network that isn't trained.
    """
    draw_photos(tmp_path / "photos", side=True)
    train_by_keras(tmp_path / "photos").save(tmp_path / "model.keras")
    flags = [f"--model={tmp_path}/model.keras", f"--dataset=folder:{tmp_path}/photos", "--progress=none"]
    outcome = run_command(teacher, *flags, f"--run_dir={tmp_path}/run", "--image_size=12")
    assert outcome.code == 0, outcome.err
    assert f"--resize=squash suits {tmp_path}/model.keras: accuracy " in outcome.out.replace("`", "")
    metrics = read_json(tmp_path / "run/teacher/metrics.json")
    assert metrics["resize"] == "squash"
    assert metrics["accuracy"] > 0.95
    assert "--resize=squash" in (tmp_path / "run/flags.cfg").read_text().splitlines()
    cut = run_command(teacher, *flags, f"--run_dir={tmp_path}/cut", "--image_size=12", "--resize=crop")
    assert cut.code == 1
    shaped = run_command(teacher, *flags, f"--run_dir={tmp_path}/other", "--image_size=12x36")
    assert "takes images of 12x12x1, but those of" in shaped.err
    assert "resize" not in shaped.out


def draw_values(root: Path) -> Path:
    """Grey photos of 12x36 with a table of the brightness of their left part, 0 to 1, and whether it is bright."""
    rng = np.random.default_rng(0)
    lines = ["image,value,bright,dark,split"]
    for number in range(120):
        value = rng.uniform()
        pixels = rng.normal(128, 30, (12, 36))
        pixels[:, :12] = 30 + 200 * value
        Image.fromarray(np.uint8(pixels.clip(0, 255))).save(root / f"{number}.png")
        bright = int(value > 0.5)
        lines.append(f"{number}.png,{value:.4f},{bright},{1 - bright},{'train' if number < 90 else 'test'}")
    (root / "labels.csv").write_text("\n".join(lines))
    return root / "labels.csv"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "columns", "told"),
    [(Regression(1), ["value"], "mae 0.0"), (Multilabel(2), ["bright", "dark"], "mean average precision 1.000")],
    ids=str,
)
def test_errors_and_labels_are_compared_in_their_direction(tmp_path, objective, columns, told):
    table = draw_values(tmp_path)
    images = keras.Input((12, 12, 1), name="photo")
    x = layers.AveragePooling2D(4, name="pool")(images)
    x = layers.Conv2D(2, 1, use_bias=False, name="same")(x)
    model = keras.Model(images, layers.Dense(len(columns), name="top")(layers.Flatten(name="flat")(x)))
    # Reads the brightness of the top left pixels, squashed, on the scale from 0 to 1.
    model.get_layer("same").set_weights([np.array([[[[1.0, 0.0]]]])])
    kernel = np.zeros((18, len(columns)))
    kernel[0], bias = ([255 / 200], [-30 / 200]) if len(columns) == 1 else ([10.0, -10.0], [-5.0, 5.0])
    model.get_layer("top").set_weights([kernel, np.array(bias)])
    options = {"objective": objective, "image_size": 12, "label_columns": tuple(columns)}
    streamed = Task.load(f"csv:{table}", **options, streamed=True)
    tasks = {way: streamed.resized_as(way) for way in RESIZE_WAYS}
    space = SearchSpace.from_model(model)
    if objective.higher_is_better:  # an order stays the same on every scale
        with pytest.raises(UserError, match=r"suit the network nearly as well. .* mean average precision on training"):
            find_preprocessing(model, space, tasks)
        found = find_preprocessing(model, space, tasks, ["scale_0_1"])
    else:
        found = find_preprocessing(model, space, tasks)
    assert (found.kind, found.resize) == ("scale_0_1", "squash")
    assert f"`resize`=squash suits it: {told}" in found.lines("it")[0]
    assert ("others at least" if told.startswith("mae") else "others at most") in found.lines("it")[0]

"""Values, labels and classes of pixels, from files on disk to int8 files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from keras import layers
from PIL import Image
from sklearn.metrics import average_precision_score

import tas_tf
from tas_tf.deploy.metadata import read_metadata
from tas_tf.zoo.loading import losses_in_file
from tests.photos import CLASSES, TRAIN, Photos, flags_for_photos
from trainers import describe, distill, pipeline, report


@pytest.fixture(scope="module")
def photos() -> Photos:
    return Photos()


@pytest.fixture(scope="module")
def table(photos, tmp_path_factory) -> Path:
    """A table beside its images: two columns of values, two of labels."""
    folder = tmp_path_factory.mktemp("table")
    with (folder / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "split", "left", "right", "left_bright", "right_bright"])
        for number, pixels in enumerate(photos.pixels):
            Image.fromarray(pixels).save(folder / f"{number}.png")
            split = "train" if number < TRAIN else "test"
            rows.writerow([f"{number}.png", split, *photos.values[number], *photos.tags[number]])
    return folder / "labels.csv"


@pytest.fixture(scope="module")
def folder(photos, tmp_path_factory) -> Path:
    """Images with masks in palette files."""
    root = tmp_path_factory.mktemp("masks")
    for number, (pixels, mask) in enumerate(zip(photos.pixels, photos.masks, strict=True)):
        part = root / ("train" if number < TRAIN else "test")
        for name in ("images", "masks"):
            (part / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(part / "images" / f"{number}.png")
        picture = Image.fromarray(mask, mode="P")
        picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
        picture.save(part / "masks" / f"{number}.png")
    return root


def for_images(last: layers.Layer) -> keras.Model:
    pixels = keras.Input((8, 8, 1), name="pixels")
    x = layers.ReLU(name="relu1")(layers.Conv2D(8, 3, padding="same", name="first")(pixels))
    x = layers.ReLU(name="relu2")(layers.Conv2D(12, 3, strides=2, padding="same", name="second")(x))
    return keras.Model(pixels, last(layers.Flatten(name="flat")(x)))


def for_pixels() -> keras.Model:
    """A U-Net with one step down, for images of any size."""
    pixels = keras.Input((None, None, 1), name="pixels")
    outer = layers.ReLU(name="relu1")(layers.Conv2D(8, 3, padding="same", name="outer")(pixels))
    x = layers.MaxPooling2D(name="down")(outer)
    x = layers.ReLU(name="relu2")(layers.Conv2D(12, 3, padding="same", name="inner")(x))
    x = layers.Concatenate(name="both")([layers.UpSampling2D(name="up")(x), outer])
    x = layers.ReLU(name="relu3")(layers.Conv2D(8, 3, padding="same", name="again")(x))
    return keras.Model(pixels, layers.Conv2D(CLASSES, 1, activation="softmax", name="classes")(x))


def save(model: keras.Model, loss, path: Path, images=None, labels=None) -> Path:
    """Saves a network that was compiled with a loss, and trained if there are images."""
    model.compile(keras.optimizers.Adam(0.01), loss)
    if images is not None:
        keras.utils.set_random_seed(0)
        model.fit(images[:TRAIN], labels[:TRAIN], batch_size=32, epochs=12, verbose=0)
    model.save(path)
    return path


@pytest.fixture(scope="module")
def values_model(photos, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "values.keras"
    model = for_images(layers.Dense(2, name="values"))
    return save(model, "mae", path, photos.network_input(), photos.values)


def run_file(path: Path, images: np.ndarray) -> np.ndarray:
    """Outputs of a file of 8 bits, by LiteRT alone."""
    lite = Interpreter(str(path))
    lite.allocate_tensors()
    given, found = lite.get_input_details()[0], lite.get_output_details()[0]
    assert given["dtype"] == found["dtype"] == np.int8
    outputs = []
    for image in images:
        scale, zero = given["quantization"]
        lite.set_tensor(given["index"], np.round(image[None] / scale + zero).clip(-128, 127).astype(np.int8))
        lite.invoke()
        scale, zero = found["quantization"]
        outputs.append((lite.get_tensor(found["index"])[0].astype(np.float32) - zero) * scale)
    return np.array(outputs)


@pytest.fixture
def flags(tiny_flags) -> list[str]:
    return flags_for_photos(tiny_flags)


def read_report(run_dir: Path) -> dict:
    return json.loads((run_dir / "report.json").read_text())


@pytest.mark.slow
def test_values_in_a_table(command, photos, table, values_model, flags, tmp_path):
    data = [f"--dataset=csv:{table}", "--label_columns=left,right"]
    arguments = [f"--run_dir={tmp_path}/run", f"--model={values_model}", *flags, *data, "--rivals=uniform"]
    outcome = command(pipeline, *arguments)
    assert outcome.code == 0, outcome
    assert not (tmp_path / "run/behaviour").exists()  # there are no classes to confuse
    assert f"--dataset: labels of {table}: 2 columns (left, right), regression." in outcome.out.replace("`", "")
    found = read_report(tmp_path / "run")
    assert found["metric"] == "mae"
    images, values = photos.network_input(), photos.values
    model = keras.models.load_model(values_model)
    errors = np.abs(model.predict(images[TRAIN:], verbose=0) - values[TRAIN:])
    assert found["teacher"]["mae"] == pytest.approx(errors.mean(), rel=1e-4)
    errors = np.abs(run_file(tmp_path / "run/export/int8.tflite", images[TRAIN:]) - values[TRAIN:])
    assert found["student"]["tflite"]["int8"]["score"] == pytest.approx(errors.mean(), rel=0.02)
    assert found["comparison"]["score_change"] == pytest.approx(found["student"]["mae"] - found["teacher"]["mae"])
    # Errors aren't called accuracies.
    assert "test mean absolute error (less is better)" in outcome.out
    assert "accuracy" not in outcome.out
    page = (tmp_path / "run/report.html").read_text()
    assert "test mean absolute error (less is better)" in page
    assert "ccuracy" not in page.partition("All settings")[0]
    metadata = read_metadata(tmp_path / "run/export/int8.tflite")
    assert (metadata["task"], metadata["output"], metadata["labels"]) == ("regression", "values", ["left", "right"])
    # The loss goes on, and nothing is made again.
    keras.models.load_model(tmp_path / "run/teacher/model.keras")
    assert losses_in_file(tmp_path / "run/teacher/model.keras")["loss"] is keras.losses.mean_absolute_error
    again = command(pipeline, *arguments)
    assert again.code == 0, again
    assert again.out.count("up to date") >= 4
    later = command(distill, f"--flagfile={tmp_path}/run/flags.cfg", f"--run_dir={tmp_path}/run", "--model=")
    assert "is up to date: test mean absolute error" in later.out, later
    other = command(distill, *arguments[:1], *flags, *data, "--loss=mse")
    assert 'loss: was unset, now "mse"' in other.err
    compared = command(report, "--compare", f"{tmp_path}/run", f"{tmp_path}/run/rivals/uniform")
    assert compared.code == 0, compared
    assert "test mean absolute" in compared.out
    assert "accuracy" not in compared.out


@pytest.mark.slow
def test_labels_in_a_table(command, photos, table, flags, tmp_path):
    """The file isn't trained, so the command trains it; its loss has label smoothing."""
    loss = keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.1)
    model = save(for_images(layers.Dense(2, name="tags")), loss, tmp_path / "tags.keras")
    arguments = [f"--model={model}", *flags, f"--dataset=csv:{table}", "--label_columns=left_bright,right_bright"]
    outcome = command(
        pipeline, f"--run_dir={tmp_path}/run", *arguments, "--train_model", "--teacher_epochs=6", "--teacher_warmup=0"
    )
    assert outcome.code == 0, outcome
    assert "2 columns (left_bright, right_bright), multilabel." in outcome.out
    found = read_report(tmp_path / "run")
    assert found["metric"] == "mean_average_precision"
    assert found["teacher"]["epochs"] == 6
    outputs = run_file(tmp_path / "run/export/int8.tflite", photos.network_input()[TRAIN:])
    expected = np.mean([average_precision_score(photos.tags[TRAIN:, one], outputs[:, one]) for one in range(2)])
    assert found["student"]["tflite"]["int8"]["score"] == pytest.approx(expected, abs=1e-6)
    assert losses_in_file(tmp_path / "run/teacher/model.keras")["loss"].get_config()["label_smoothing"] == 0.1


@pytest.mark.slow
def test_masks_in_a_folder(command, photos, folder, flags, tmp_path):
    path = tmp_path / "unet.keras"
    labels = photos.masks[..., np.newaxis]
    model = for_pixels()
    save(model, "sparse_categorical_crossentropy", path, photos.network_input(), labels)
    arguments = [f"--model={path}", *flags, f"--dataset=folder:{folder}"]
    outcome = command(pipeline, f"--run_dir={tmp_path}/run", *arguments)
    assert outcome.code == 0, outcome
    assert "masks with the pixel values 0, 1, 2, classification per pixel." in outcome.out
    found, images, wanted = read_report(tmp_path / "run"), photos.network_input()[TRAIN:], photos.masks[TRAIN:]
    assert found["metric"] == "mean_iou"
    outputs = {"teacher": model.predict(images, verbose=0)}
    outputs["int8"] = run_file(tmp_path / "run/export/int8.tflite", images)
    for name, score in (
        ("teacher", found["teacher"]["mean_iou"]),
        ("int8", found["student"]["tflite"]["int8"]["score"]),
    ):
        said = outputs[name].argmax(-1)
        overlaps = [
            ((said == one) & (wanted == one)).sum() / ((said == one) | (wanted == one)).sum() for one in range(CLASSES)
        ]
        assert score == pytest.approx(np.mean(overlaps), abs=1e-3)
    assert "test mean IoU" in outcome.out
    student, free = (
        keras.models.load_model(tmp_path / "run/student" / name) for name in ("model.keras", "any_size.keras")
    )
    assert free.input_shape == (None, None, None, 1)
    np.testing.assert_allclose(free(images), student(images), rtol=1e-5, atol=1e-6)
    assert free(np.zeros((1, 12, 6, 1))).shape == (1, 12, 6, CLASSES)
    described = command(describe, f"--model={path}", f"--dataset=folder:{folder}", "--image_size=8")
    assert "3 classes per pixel" in described.out, described
    # What doesn't fit is said before anything is written.
    for more, message in (
        (["--flip"], "`--flip` changes images alone: it needs labels of whole images"),
        (["--task=regression"], "which ends in 3 outputs with the activation `softmax`"),
        (["--dataset=digits"], "`--dataset=digits` has a class for each image, which doesn't suit classification per"),
    ):
        wrong = command(pipeline, f"--run_dir={tmp_path}/wrong", *arguments, *more)
        assert (wrong.code, "Traceback" in wrong.err) == (1, False)
        assert message in wrong.err
    assert not (tmp_path / "wrong").exists()


@pytest.mark.slow
def test_two_heads_with_weights_of_images(command, photos, flags, tmp_path):
    """The commands find each output's column, keep losses and their weights, and write files with both outputs."""
    lines = ["path,split,bright,left,weight"]
    for number, pixels in enumerate(photos.pixels):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        split = "train" if number < TRAIN else "test"
        bright = ("dark", "light")[photos.tags[number, 0]]
        lines.append(f"{number}.png,{split},{bright},{photos.values[number, 0]},{1 + number % 2}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    pixels = keras.Input((8, 8, 1), name="pixels")
    x = layers.ReLU(name="relu1")(layers.Conv2D(8, 3, padding="same", name="first")(pixels))
    x = layers.Flatten(name="flat")(layers.ReLU(name="relu2")(layers.Conv2D(12, 3, strides=2, name="second")(x)))
    model = keras.Model(pixels, {"left": layers.Dense(1)(x), "bright": layers.Dense(2, "softmax")(x)})
    losses = {"left": "mse", "bright": "sparse_categorical_crossentropy"}
    model.compile(keras.optimizers.Adam(0.01), losses, loss_weights={"left": 0.1, "bright": 1.0})
    labels = {"left": photos.values[:TRAIN, 0], "bright": photos.tags[:TRAIN, 0]}
    keras.utils.set_random_seed(0)
    model.fit(photos.network_input()[:TRAIN], labels, batch_size=32, epochs=12, verbose=0)
    model.save(tmp_path / "heads.keras")
    arguments = [f"--run_dir={tmp_path}/run", f"--model={tmp_path}/heads.keras", f"--dataset=csv:{tmp_path}/labels.csv"]
    outcome = command(pipeline, *arguments, *flags)
    assert outcome.code == 0, outcome
    assert "labels.csv: bright (dark, light) for bright; left for left." in outcome.out
    found = read_report(tmp_path / "run")
    outputs = model.predict(photos.network_input()[TRAIN:], verbose=0)
    wanted = photos.values[TRAIN:, 0]
    right = (outputs["bright"].argmax(1) == photos.tags[TRAIN:, 0]).mean()
    explained = 1 - np.mean((outputs["left"][:, 0] - wanted) ** 2) / np.var(wanted)
    assert found["metric"] == "mean_score"
    assert found["teacher"]["mean_score"] == pytest.approx((right + explained) / 2, rel=1e-4)
    kept = losses_in_file(tmp_path / "run/teacher/model.keras")
    assert kept["loss_weights"] == {"left": 0.1, "bright": 1.0}
    student = keras.models.load_model(tmp_path / "run/student/model.keras")
    expected = student.predict(photos.network_input()[TRAIN:], verbose=0)
    assert {name: one.shape[1:] for name, one in expected.items()} == {"left": (1,), "bright": (2,)}
    deployed = tas_tf.TFLiteModel(tmp_path / "run/export/fp32.tflite").predict(photos.network_input()[TRAIN:])
    for name, values in expected.items():
        np.testing.assert_allclose(deployed[name], values, rtol=1e-3, atol=1e-3)
    told = read_metadata(tmp_path / "run/export/fp32.tflite")["outputs"]
    assert (told["left"]["task"], told["bright"]["labels"]) == ("regression", ["dark", "light"])
    there = photos.tags[TRAIN:, 0]
    hits = outputs["bright"].argmax(1) == there
    recognised = {name: hits[there == number].mean() for number, name in enumerate(("dark", "light"))}
    assert found["teacher"]["bright_by_class"] == pytest.approx(recognised)
    assert "left: mean absolute error (less is better)" in outcome.out
    assert "bright: accuracy" in (tmp_path / "run/report.html").read_text()
    again = command(distill, f"--flagfile={tmp_path}/run/flags.cfg", f"--run_dir={tmp_path}/run", "--model=")
    assert "is up to date: test mean score" in again.out, again
    refused = command(pipeline, f"--run_dir={tmp_path}/new", *arguments[1:2], *flags, "--dataset=digits")
    assert "`--dataset=digits` has a class for each image, which doesn't suit several" in refused.err


@pytest.mark.slow
def test_what_does_not_fit(command, table, folder, values_model, flags, tmp_path):
    untrained = save(for_images(layers.Dense(2, name="values")), "mse", tmp_path / "untrained.keras")
    columns = "--label_columns=left,right"
    for more, message in (
        ([], "must have 2 columns of labels for regression. Received: 4 (left, right, left_bright, right_bright)"),
        (["--label_columns=left,middle"], "`--label_columns` must name columns of"),
        ([f"--dataset=folder:{folder}"], "has a mask for each image: a class for each pixel."),
        (["--loss=nonsense"], "`--loss` must be a loss that Keras knows, or a function. Received: 'nonsense'"),
        (["--task=classification", columns], "must have 1 column of labels for classes"),
        ([columns, f"--model={untrained}"], "guessing gives 2."),
        ([columns, f"--model={untrained}"], "If it isn't trained yet, give `--train_model`."),
        (["--model=resnet8", "--loss=mae"], "`--loss=mae` needs a `--model` of your own."),
    ):
        arguments = [f"--run_dir={tmp_path}/run", f"--model={values_model}", *flags, f"--dataset=csv:{table}", *more]
        outcome = command(pipeline, *arguments)
        assert outcome.code == 1, outcome
        assert message in outcome.err
        assert "Traceback" not in outcome.err
    assert not (tmp_path / "run").exists()

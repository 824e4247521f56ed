"""The deployment examples, run as users run them: copied elsewhere, where our packages can't be imported."""

import dataclasses
import re
import runpy
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

from tas_tf.data.resizing import resize_image
from tas_tf.deploy.tflite import export_tflite
from tests.examples.networks import BLUE_FIRST, COLOUR, GREY, OLD, PADDED, RAW, Network

EXAMPLES = Path(__file__).parents[2] / "examples"
TFLITE, SAVED_MODEL = "classify_tflite.py", "classify_saved_model.py"
OURS = ("tas_tf", "export", "trainers")
#: Runs the program whose path comes second; the modules named first can't be imported.
WITHOUT = """
import runpy, sys
sys.modules.update(dict.fromkeys(sys.argv[1].split(",")))
del sys.argv[:2]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
#: What LiteRT says of itself.
DELEGATE = "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n"
#: What pixels that differ by one level in places do to a probability of these networks.
ONE_LEVEL = 0.006


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> dict[str, Path]:
    """Images of coarse patches with fine noise, in several formats and proportions, by name."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(5)

    def draw(name: str, mode: str, width: int, height: int) -> Path:
        coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 4), np.uint8)).resize((width, height), Image.BICUBIC)
        noisy = np.clip(np.int16(coarse) + rng.integers(-30, 31, (height, width, 4)), 0, 255)
        Image.fromarray(np.uint8(noisy)).convert(mode).save(folder / name)
        return folder / name

    drawn = {
        "wide": draw("wide photo.ppm", "RGB", 97, 40),
        "tall": draw("tall.ppm", "RGB", 31, 64),
        "tiny": draw("tiny.ppm", "RGB", 7, 8),
        "exact": draw("exact.ppm", "RGB", 12, 12),
        "grey": draw("grey.pgm", "L", 45, 38),
        "png": draw("colour.png", "RGB", 50, 33),
        "alpha": draw("alpha.png", "RGBA", 33, 50),
        "grey_png": draw("grey.png", "L", 29, 31),
        "jpeg": draw("photo.jpg", "RGB", 40, 30),
    }
    drawn["palette"] = folder / "palette.png"
    Image.open(drawn["png"]).quantize(64).save(drawn["palette"])
    kind, rest = drawn["grey"].read_bytes().split(b"\n", 1)
    drawn["comment"] = folder / "comment.pgm"
    drawn["comment"].write_bytes(kind + b"\n# 1 2 255 by hand\n" + rest)
    return drawn


@pytest.fixture(scope="module")
def colour_file(tmp_path_factory) -> Path:
    return COLOUR.write_tflite(tmp_path_factory.mktemp("colour") / "fp32.tflite")


@pytest.fixture(scope="module")
def colour_folder(tmp_path_factory) -> Path:
    return COLOUR.write_saved_model(tmp_path_factory.mktemp("colour") / "saved_model")


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory, photos, colour_file, colour_folder) -> Path:
    """Models and images, most of which can't be read."""
    folder = tmp_path_factory.mktemp("bad")
    for name, source in {"photo.ppm": "wide", "photo.png": "png", "photo.jpg": "jpeg"}.items():
        shutil.copy(photos[source], folder / name)
    (folder / "cut.ppm").write_bytes(photos["wide"].read_bytes()[:-10])
    (folder / "text.png").write_text("hello")
    shutil.copy(colour_file, folder / "good.tflite")
    export_tflite(colour_folder, folder / "bare.tflite")
    (folder / "broken.tflite").write_bytes(b"no flatbuffer at all" * 9)
    COLOUR.pack(folder / "broken.tflite")
    with zipfile.ZipFile(folder / "alien.zip", "w") as archive:
        archive.writestr("other.txt", "")
    shutil.copytree(colour_folder, folder / "good")
    shutil.copytree(colour_folder, folder / "bare", ignore=shutil.ignore_patterns("assets.extra"))
    shutil.copytree(colour_folder / "assets.extra", folder / "empty" / "assets.extra")
    return folder


def run(folder: Path, program: str, *arguments: str | Path, without: Sequence[str] = ()):
    """Copies an example to `folder` and runs it there, isolated, where `without` and our packages are missing."""
    if (EXAMPLES / program).exists():
        shutil.copy(EXAMPLES / program, folder)
    command = [sys.executable, "-I", "-c", WITHOUT, ",".join([*OURS, *without]), program, *map(str, arguments)]
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", "LC_ALL": "C.UTF-8"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8")


def run_here(monkeypatch, program: str, *arguments: str | Path) -> dict:
    """Runs an example in this process and returns what it defines."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys, "argv", [program, *map(str, arguments)])
    return runpy.run_path(str(EXAMPLES / program))


def read_printed(out: str) -> dict[str, list[tuple[str, float]]]:
    """Returns the label and probability of each line, by the path printed above them."""
    found: dict[str, list[tuple[str, float]]] = {}
    for line in out.splitlines():
        if not line.startswith(" "):
            current = found[line] = []
        else:
            chance, label = line.strip().split("%  ")
            current.append((label, float(chance) / 100))
    return found


def check(out: str, network: Network, paths: Sequence[Path], *, atol: float = ONE_LEVEL) -> None:
    """Compares what was printed with the Keras model on images resized as in training."""
    printed = read_printed(out)
    assert list(printed) == [str(path) for path in paths]
    for path in paths:
        expected = network.chances(path)
        labels, chances = zip(*printed[str(path)], strict=True)
        assert len(set(labels)) == min(5, len(network.labels))
        assert list(chances) == sorted(chances, reverse=True)
        # Decoders of JPEG differ by a few levels.
        tolerance = 3 * atol if path.suffix == ".jpg" else atol
        np.testing.assert_allclose(chances, [expected[label] for label in labels], atol=tolerance, err_msg=str(path))
        left_out = [chance for label, chance in expected.items() if label not in labels]
        assert max(left_out, default=0) <= chances[-1] + atol


@pytest.mark.parametrize("module", [*OURS, "PIL"])
def test_isolation_hides_our_packages_and_those_named(tmp_path, module):
    (tmp_path / "program.py").write_text(f"import {module}")
    done = run(tmp_path, "program.py", without=["PIL"])
    assert f"import of {module} halted" in done.stderr
    assert done.returncode == 1


def test_tflite_needs_numpy_and_litert_alone(tmp_path, photos, colour_file):
    paths = [photos[name] for name in ("wide", "tall", "tiny", "exact", "grey", "comment")]
    done = run(tmp_path, TFLITE, colour_file, *paths, without=["PIL", "tensorflow", "keras"])
    assert (done.returncode, done.stderr.replace(DELEGATE, "")) == (0, "")
    check(done.stdout, COLOUR, paths)


def test_tflite_reads_other_images_with_pillow(tmp_path, photos, colour_file):
    paths = [photos[name] for name in ("png", "alpha", "palette", "jpeg", "grey_png")]
    done = run(tmp_path, TFLITE, colour_file, *paths, without=["tensorflow", "keras"])
    check(done.stdout, COLOUR, paths)


OTHER_INPUTS = [
    pytest.param(GREY, id="grey"),
    pytest.param(BLUE_FIRST, id="blue_first"),
    pytest.param(RAW, id="raw", marks=pytest.mark.slow),
    pytest.param(OLD, id="old", marks=pytest.mark.slow),
    pytest.param(PADDED, id="padded"),
]


@pytest.mark.parametrize("network", OTHER_INPUTS)
def test_tflite_with_other_inputs(tmp_path, photos, network):
    path = network.write_tflite(tmp_path / "model.tflite")
    paths = [photos[name] for name in ("wide", "tall", "grey", "png", "grey_png")]
    check(run(tmp_path, TFLITE, path, *paths).stdout, network, paths)


OTHER_TASKS = {
    "binary": dataclasses.replace(COLOUR, labels=("no", "yes"), task="binary"),
    "binary, sigmoid": dataclasses.replace(COLOUR, labels=("no", "yes"), task="binary", activation="sigmoid"),
    "multilabel": dataclasses.replace(COLOUR, task="multilabel"),
}


@pytest.mark.parametrize("network", OTHER_TASKS.values(), ids=OTHER_TASKS)
def test_decisions(tmp_path, photos, network, monkeypatch, capsys):
    paths = [photos["png"]]
    run_here(monkeypatch, TFLITE, network.write_tflite(tmp_path / "network.tflite"), *paths)
    check(capsys.readouterr().out, network, paths)
    run_here(monkeypatch, SAVED_MODEL, network.write_saved_model(tmp_path / "network"), *paths)
    check(capsys.readouterr().out, network, paths)


def test_values(tmp_path, photos, monkeypatch, capsys):
    network = dataclasses.replace(COLOUR, task="regression")
    expected = network.chances(photos["png"])
    for program, model in (
        (TFLITE, network.write_tflite(tmp_path / "network.tflite")),
        (SAVED_MODEL, network.write_saved_model(tmp_path / "other")),
    ):
        run_here(monkeypatch, program, model, photos["png"])
        lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
        found = {" ".join(name): float(value) for value, *name in lines}
        assert list(found) == list(network.labels)
        np.testing.assert_allclose(list(found.values()), list(expected.values()), atol=0.05)


@pytest.mark.parametrize(
    ("network", "dtype"),
    [
        pytest.param(COLOUR, tf.int8, id="normalised-int8"),
        pytest.param(COLOUR, tf.uint8, id="normalised-uint8", marks=pytest.mark.slow),
        pytest.param(RAW, tf.int8, id="raw-int8", marks=pytest.mark.slow),
        pytest.param(RAW, tf.uint8, id="raw-uint8"),
    ],
)
def test_tflite_of_integers_in_and_out(tmp_path, photos, network, dtype):
    path = network.write_integers(tmp_path / "model.tflite", list(photos.values()), dtype)
    assert Interpreter(str(path)).get_input_details()[0]["dtype"] == dtype.as_numpy_dtype
    paths = [photos[name] for name in ("wide", "tall", "png")]
    check(run(tmp_path, TFLITE, path, *paths).stdout, network, paths, atol=0.03)


def test_tflite_rounds_and_clips_to_integers_and_reads_them_back(tmp_path, photos, monkeypatch, capsys):
    """Calibrated on a dim image, so that a bright one leaves the range; the softmax is inside."""
    network, dim = dataclasses.replace(COLOUR, activation="softmax"), tmp_path / "dim.png"
    pixels = np.asarray(Image.open(photos["exact"]))
    Image.fromarray(100 + pixels // 5).save(dim)
    path = network.write_integers(tmp_path / "model.tflite", [dim], tf.int8)
    model = Interpreter(str(path))
    model.allocate_tensors()
    (source,), (target,) = model.get_input_details(), model.get_output_details()
    scale, zero_point = source["quantization"]
    levels = np.rint(network.normalise(np.float32(pixels)) / scale) + zero_point
    assert levels.min() < -128 < 127 < levels.max()
    levels = np.int8(np.minimum(np.maximum(levels, -128), 127))[None]
    model.set_tensor(source["index"], levels)
    model.invoke()
    scale, zero_point = target["quantization"]
    assert zero_point != 0
    expected = dict(
        zip(COLOUR.labels, (np.float32(model.get_tensor(target["index"])[0]) - zero_point) * scale, strict=True)
    )

    capsys.readouterr()  # what the converter said
    with mock.patch.object(Interpreter, "set_tensor", autospec=True, side_effect=Interpreter.set_tensor) as fed:
        run_here(monkeypatch, TFLITE, path, photos["exact"])
    np.testing.assert_array_equal(fed.call_args.args[2], levels)
    printed = dict(read_printed(capsys.readouterr().out)[str(photos["exact"])])
    assert printed == pytest.approx({label: expected[label] for label in printed}, abs=6e-5)


def test_saved_model_in_a_process_of_its_own(tmp_path, photos, colour_folder):
    paths = [photos[name] for name in ("png", "alpha", "jpeg", "grey_png")]
    done = run(tmp_path, SAVED_MODEL, colour_folder, *paths, "missing.png", without=["keras", "PIL"])
    check(done.stdout, COLOUR, paths)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: missing.png: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("network", OTHER_INPUTS)
def test_saved_model_with_other_inputs(tmp_path, photos, network, monkeypatch, capsys):
    folder = network.write_saved_model(tmp_path / "saved_model")
    paths = [photos[name] for name in ("png", "grey_png", "jpeg")]
    run_here(monkeypatch, SAVED_MODEL, folder, *paths)
    check(capsys.readouterr().out, network, paths)


@pytest.fixture(params=[TFLITE, SAVED_MODEL])
def read_image(request, monkeypatch, colour_file, colour_folder):
    """The function with this name in each example."""
    model = {TFLITE: colour_file, SAVED_MODEL: colour_folder}[request.param]
    return run_here(monkeypatch, request.param, model)["read_image"]


@pytest.mark.parametrize("way", ["squash", "crop", "pad"])
def test_images_are_resized_as_in_training(tmp_path, read_image, way):
    rng, path = np.random.default_rng(1), tmp_path / "image.png"
    for height, width in [(12, 12), (7, 5), (13, 40), (41, 13), (1, 9), (150, 101), (24, 24)]:
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(path)
        for size in ((12, 12), (29, 29), (11, 20)):
            expected = resize_image(tf.constant(pixels), size, way).numpy().astype(int)
            difference = np.abs(np.asarray(read_image(path, *size, 3, way)) - expected)
            assert difference.max() <= 1, (height, width, size)
            assert (difference > 0).mean() < 0.02, (height, width, size)  # ties of rounding


def test_images_keep_the_proportions_of_a_model_that_is_not_square(tmp_path, read_image):
    pixels, path = np.random.default_rng(2).integers(0, 256, (12, 20, 3), np.uint8), tmp_path / "image.png"
    for padding in ((0, 0), (3, 4)):
        Image.fromarray(np.pad(pixels, [(0, 0), padding, (0, 0)])).save(path)
        np.testing.assert_array_equal(read_image(path, 12, 20, 3, "crop"), pixels)


@pytest.mark.parametrize(
    ("model", "image", "message"),
    [
        ("missing.tflite", "photo.ppm", "missing.tflite: .*No such file"),
        ("bare.tflite", "photo.ppm", "bare.tflite: File is not a zip file"),
        ("alien.zip", "photo.ppm", "alien.zip: .*no item named 'labels.txt'"),
        ("broken.tflite", "photo.ppm", "broken.tflite: .*not a valid Flatbuffer"),
        ("photo.ppm", "photo.ppm", "photo.ppm: File is not a zip file"),
        ("good.tflite", "missing.ppm", "missing.ppm: .*No such file"),
        ("good.tflite", "photo.jpg", "photo.jpg: .*PIL"),
        ("good.tflite", "cut.ppm", "cut.ppm: cannot reshape"),
    ],
)
def test_bad_files_end_tflite_with_one_line(bad_files, model, image, message):
    done = run(bad_files, TFLITE, model, image, without=["PIL"])
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(f"error: {message}.*\n", done.stderr.replace(DELEGATE, ""))


@pytest.mark.parametrize(
    ("folder", "image", "message"),
    [
        ("missing", "photo.png", "missing: .*No such file"),
        ("bare", "photo.png", "bare: .*No such file.*labels.txt"),
        ("empty", "photo.png", "empty: SavedModel file does not exist"),
        ("good", "text.png", "text.png: .*Unknown image file format"),
    ],
)
def test_bad_files_end_saved_model_with_one_line(bad_files, monkeypatch, capsys, folder, image, message):
    monkeypatch.chdir(bad_files)
    with pytest.raises((OSError, tf.errors.InvalidArgumentError)) as raised:
        run_here(monkeypatch, SAVED_MODEL, folder, image)
    sys.excepthook(raised.type, raised.value, raised.tb)
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(f"error: {message}.*\n", err)


@pytest.mark.parametrize("program", [TFLITE, SAVED_MODEL])
def test_without_arguments_the_usage_is_shown(monkeypatch, program):
    with pytest.raises(SystemExit, match=rf"python {program} (MODEL.tflite|FOLDER) IMAGE\.\.\."):
        run_here(monkeypatch, program)

"""Every mistake is reported in a line or two, with exit code 1, and leaves no files behind."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from tas_tf.errors import UserError
from tas_tf.graph.graph import Graph
from tests.commands import quiet_environment
from tests.digits import tiny_network
from tests.networks import classify, conv_bn, randomize
from trainers import baseline, describe, distill, pipeline, report, search, teacher

ROOT = Path(__file__).parents[2]


@keras.saving.register_keras_serializable(package="users")
class Subclassed(keras.Model):
    """A model whose graph is hidden in `call`."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv, self.dense = layers.Conv2D(8, 3), layers.Dense(10)

    def call(self, images):
        return self.dense(keras.ops.mean(self.conv(images), (1, 2)))


def save(path: Path, outputs_of, shape=(8, 8, 1)) -> Path:
    images = keras.Input(shape)
    randomize(keras.Model(images, outputs_of(images))).save(path)
    return path


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> dict[str, Path]:
    """Files that can't be used as a network for digits, by what is wrong with them."""
    folder = tmp_path_factory.mktemp("models")
    found = {
        "chance": save(folder / "chance.keras", lambda x: classify(conv_bn(x, 8), 10, "softmax")),
        "multi_label": save(folder / "multi_label.keras", lambda x: classify(conv_bn(x, 8), 10, "sigmoid")),
        "regression": save(folder / "regression.keras", lambda x: classify(conv_bn(x, 8), 1)),
        "seven": save(folder / "seven.keras", lambda x: classify(conv_bn(x, 8), 7)),
        "colour": save(folder / "colour.keras", lambda x: classify(conv_bn(x, 8), 10), (8, 8, 3)),
        "any_size": save(folder / "any_size.keras", lambda x: classify(conv_bn(x, 8), 10), (None, None, 1)),
        "dense": save(folder / "dense.keras", lambda x: layers.Dense(10)(layers.Flatten()(x))),
        "text": folder / "text.keras",
        "truncated": folder / "truncated.keras",
        "subclassed": folder / "subclassed.keras",
    }
    found["text"].write_text("not a model")
    found["truncated"].write_bytes(found["chance"].read_bytes()[:-1000])
    model = Subclassed()
    model(np.zeros((1, 8, 8, 1), np.float32))
    model.save(found["subclassed"])
    return found


def check(outcome, run_dir: Path, *messages: str) -> None:
    assert outcome.code == 1, outcome
    assert outcome.err.startswith("error: ")
    assert "Traceback" not in outcome.err
    assert outcome.err.count("\n") <= 2, outcome.err
    assert len(outcome.err) < 500
    for message in messages:
        assert message in outcome.err
    assert not run_dir.exists()


@pytest.mark.parametrize(
    ("name", "message"),
    {
        "chance": "near chance level",
        "multi_label": "a class for each image, which doesn't suit multilabel",
        "regression": "ends in 1 output with the activation `linear`",
        "seven": "has 7 classes, but `digits` has 10",
        "colour": "takes images of 8x8x3, but those of `digits` are 8x8x1",
        "any_size": "near chance level",
        "dense": "Nothing can be searched",
        "text": "is damaged or isn't a `.keras` file",
        "truncated": "is damaged or isn't a `.keras` file",
        "subclassed": "Subclassed",
    }.items(),
)
@pytest.mark.parametrize(
    "module", [pytest.param(teacher, marks=pytest.mark.slow), pipeline], ids=["teacher", "pipeline"]
)
def test_models(command, models, tmp_path, tiny_flags, module, name, message):
    outcome = command(module, f"--run_dir={tmp_path}/run", f"--model={models[name]}", *tiny_flags)
    check(outcome, tmp_path / "run", message)


def test_a_subclassed_model_in_python():
    model = Subclassed()
    model(np.zeros((1, 8, 8, 1), np.float32))
    with pytest.raises(UserError, match=r"`model` .*functional"):
        Graph.from_model(model)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs=3"], "Unknown command line flag 'epochs'"),
        (["lr=0.3"], "Did you mean `--lr=0.3`?"),
        (["--dataset=cifar11"], "cifar11"),
        (["--dataset=folder:nowhere"], "missing folder"),
        (["--dataset=folder:"], "missing folder"),
        (["--run_dir="], "`--run_dir` is needed"),
        (["--model="], "`--model` is needed"),
        (["--model=nowhere.keras"], "no file nowhere.keras"),
        (["--budget=macs:0.001"], "Expected at least macs:0."),
        (["--budget=half"], "`--budget` must be KIND:VALUE"),
        (["--budget=macs:1.5"], "a share up to 1"),
        (["--budget=macs:1G"], "more than tiny costs"),
        (["--budget=flops:0.5"], "`--budget` must be KIND:VALUE"),
        (["--batch_size=101"], "`--batch_size` doesn't fit"),
        (["--batch_size=0"], "`--batch_size` must be at least 1. Received: 0."),
        (["--train_limit=1438"], "`--train_limit` must be from 10"),
        (["--train_limit=5"], "`--train_limit` must be from 10"),
        (["--temperature_start=0"], "`--temperature_start` must be above 0"),
        (["--temperature_end=-1"], "`--temperature_end` must be above 0"),
        (["--temperature_end=nan"], "`--temperature_end` must be above 0"),
        (["--arch_betas=0.5,high"], "`--arch_betas` must be 2 numbers"),
        (["--arch_betas=0.5,1.5"], "`--arch_betas` must be at least 0 and below 1"),
        (["--tolerance=-0.1"], "`--tolerance` must be at least 0"),
        (["--flip=maybe"], "flag --flip=maybe: expected true or false."),
        (["--tolerance=1"], "`--tolerance` must be at least 0 and below 1"),
        (["--split_share=0"], "`--split_share` must be above 0 and below 1"),
        (["--arch_lr=-1"], "`--arch_lr` must be at least 0"),
        (["--lr=nan"], "`--lr` must be "),
        (["--lr=0.1", "--student_lr=nan"], "`--student_lr` must be "),
        (["--num_classes=7", "--model=resnet8"], "has 7 classes, but `digits` has 10"),
        (["--channels=2"], "`--channels` must be 1, as in the images of digits, or 3. Received: 2"),
        (["--image_size=8x8x8"], "`--image_size` must be a whole number, or height and width as in 48x144"),
        (["--image_size=0x8"], "`--image_size` must be at least 1"),
        (["--strategy=many"], "`--strategy` must be one of auto, one_device, mirrored, multi_worker"),
        (["--jit_compile", "--strategy=mirrored"], "`--jit_compile` works on one device"),
        (["--strategy=multi_worker"], "`--strategy=multi_worker` needs TF_CONFIG in the environment of each worker"),
        (["--strategy=mirrored", "--batch_size=33"], "divisible by the number of replicas"),
        (["--search_from_teacher"], "there is no teacher"),
        (["--flagfile=nowhere.cfg"], "nowhere.cfg"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_flags_of_the_search(command, tmp_path, trained_tiny, tiny_flags, arguments, message):
    outcome = command(search, f"--run_dir={tmp_path}/run", f"--model={trained_tiny}", *tiny_flags, *arguments)
    check(outcome, tmp_path / "run", message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--time=5x", "`--time` must be a duration, such as 20m, 2h or 1h30m"),
        ("--time=1s", "`--time`"),
        ("--recipe=best", "`--recipe` must be one of fast, balanced, paper"),
        ("--rivals=none", "`--rivals` must name some of random, uniform"),
        ("--inherit=magic", "`--inherit` must be one of auto, none, teacher, race, supernet"),
        ("--importance=l3", "`--importance` must be one of l1, fpgm, lfh, taylor, bn_scale, none"),
        ("--importance_images=0", "`--importance_images` must be at least 1"),
        ("--proposals=0", "`--proposals` must be at least 1"),
        ("--rate_factors=", "`--rate_factors` must name at least one factor"),
        ("--rate_factors=0", "`--rate_factors` must be above 0"),
        ("--race_share=1", "`--race_share` must be above 0 and below 1"),
        ("--race_effort=0", "`--race_effort` must be above 0"),
        ("--formats=onnx", "`--formats` must name some of saved_model, fp32"),
        ("--latency_format=onnx", "`--latency_format` must be one of fp32, fp16"),
        ("--threads=0", "`--threads` must be at least 1"),
        ("--latency_rounds=0", "`--latency_rounds` must be at least 1"),
        ("--max_accuracy_drop=2", "`--max_accuracy_drop` must be from 0 to 1"),
        ("--calibration_images=0", "`--calibration_images` must be at least 1"),
        ("--qat_lr=-1", "`--qat_lr` must be at least 0"),
        ("--preprocess=bgr", "`--preprocess` must be one of auto, standardise"),
        ("--resize=stretch", "`--resize` must be one of auto, squash, crop, pad"),
        ("--seed=-1", "`--seed` must be from 0 to 4294967295"),
        ("--precision=float16", "`--precision` must be one of float32, mixed_bfloat16"),
        ("--checkpoint_minutes=0", "`--checkpoint_minutes` must be above 0"),
        ("--accumulate=0", "`--accumulate` must be at least 1"),
        ("--accumulate=3", "`--accumulate`"),
        ("--kd_views=-1", "`--kd_views` must be at least 0"),
        ("--num_drawn=0", "`--num_drawn` must be a whole number of at least 1, or all"),
        ("--random_shapes=0", "`--random_shapes` must be at least 1"),
        ("--held_out_limit=0", "`--held_out_limit` must be at least 1"),
        ("--color_jitter=1,2", "`--color_jitter` must be 4 numbers"),
        ("--momentum=1", "`--momentum` must be at least 0 and below 1"),
        ("--budget=latency:0", "`--budget` must be above 0"),
        ("--budget=latency:1ns", "`--budget` must be KIND:VALUE"),
        ("--budget=bytes:1k", "Expected at least bytes:"),
        ("--budget=latency:0.5 --latency_from=nowhere.json", "nowhere.json"),
        ("--shape=nowhere.json", "there is no nowhere.json"),
        ("--shape=published/none", "no shape 'none' was published"),
        ("--teacher_from=nowhere", "nowhere"),
        ("--custom_objects=nowhere.py", "`--custom_objects` must name a Python file"),
        ("--task=magic", "`--task` must be one of classification, binary, multilabel, regression"),
        ("--loss=magic", "`--loss` must be a loss that Keras knows"),
        ("--label_columns=a", "`--label_columns` is for csv:FILE"),
        ("--features=a,b", "`--features` is for data sets of TensorFlow Datasets"),
        ("--dataset=csv:nowhere.csv", "`--dataset` names a missing table"),
        ("--dataset=python:nowhere.py", "`--dataset` must name a Python file"),
        ("--progress=loud", "`--progress` must be one of auto, bar, lines, none"),
        ("--width_divisor=0", "`--width_divisor` must be at least 1"),
        ("--axes=none", "`--axes` must be one of both, width, depth"),
        ("--formats=qat_int8 --recompute", "`--recompute`"),
    ],
)
def test_flags_of_the_pipeline(command, tmp_path, trained_tiny, tiny_flags, arguments, message):
    left_out = (
        ("--student_", "--train_limit", "--preprocess", "--test_limit", "--search_epochs")
        if arguments.startswith(("--time", "--dataset"))
        else ()
    )
    flags = [one for one in tiny_flags if not one.startswith(left_out)]
    outcome = command(pipeline, f"--run_dir={tmp_path}/run", f"--model={trained_tiny}", *flags, *arguments.split())
    check(outcome, tmp_path / "run", message)


def test_a_run_dir_that_can_not_be_written(command, tmp_path, trained_tiny, tiny_flags):
    (tmp_path / "file").write_text("")
    outcome = command(teacher, f"--run_dir={tmp_path}/file/run", f"--model={trained_tiny}", *tiny_flags)
    check(outcome, tmp_path / "file/run", "`--run_dir` must be a writable folder")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"version": 1, "net', "is not JSON"),
        ("[]", "expected an object"),
        (None, "belongs to another network"),
        ({"stem": 0}, "widths.stem: expected a whole number, at least 1"),
        ({"stem": 9}, "widths.stem: expected 1 to 8"),
        ({"other": 3}, "widths.other is unknown"),
    ],
    ids=["truncated", "list", "other network", "zero", "too wide", "unknown unit"],
)
def test_shapes(command, interrupted, tmp_path, tiny_flags, content, message):
    data = json.loads((interrupted.path / "search/shape.json").read_text())
    if content is None:
        data["graph_digest"] = "0" * 16
    elif isinstance(content, dict):
        data["widths"] |= content
    path = tmp_path / "shape.json"
    path.write_text(content if isinstance(content, str) else json.dumps(data))
    places = [f"--run_dir={tmp_path}/run", f"--teacher_from={interrupted.path}", f"--shape={path}"]
    outcome = command(distill, *places, *tiny_flags)
    check(outcome, tmp_path / "run", message)
    outcome = command(pipeline, *places, *tiny_flags)
    check(outcome, tmp_path / "run", message)


@pytest.mark.parametrize(
    "argument", ["--kd_temperature=0", "--kd_temperature=-3", "--kd_alpha=2", "--student_epochs=0"]
)
def test_flags_of_the_distillation(command, interrupted, tmp_path, tiny_flags, argument):
    places = [f"--run_dir={tmp_path}/run", f"--teacher_from={interrupted.path}"]
    shape = f"--shape={interrupted.path}/search/shape.json"
    check(command(distill, *places, shape, *tiny_flags, argument), tmp_path / "run", argument.split("=")[0].lstrip("-"))
    check(command(distill, *places, *tiny_flags), tmp_path / "run", "Run `python -m trainers.search` first")


def test_commands_that_come_too_early(command, tmp_path, trained_tiny, tiny_flags):
    run_dir = f"--run_dir={tmp_path}/run"
    check(command(distill, run_dir, *tiny_flags), tmp_path / "run", "Run `python -m trainers.teacher` first")
    check(command(report, run_dir), tmp_path / "run", "nothing has been measured")
    check(command(baseline, run_dir, f"--model={trained_tiny}"), tmp_path / "run", "`--kind` is needed")
    check(command(describe), tmp_path / "run", "`--model` is needed")


@pytest.mark.slow
def test_a_rate_that_diverges(command, tmp_path, tiny_flags):
    """The error comes at the step that diverges; a run with a lower rate can use the same folder at once."""
    arguments = [
        f"--run_dir={tmp_path}/run",
        "--model=resnet8",
        *tiny_flags,
        "--teacher_epochs=1",
        "--teacher_warmup=0",
    ]
    outcome = command(teacher, *arguments, "--lr=1e30")
    assert outcome.code == 1
    assert "Training diverged" in outcome.err
    assert "Lower the learning rate" in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "run/teacher/model.keras").exists()
    outcome = command(teacher, *arguments, "--lr=1e29")
    assert "Training diverged" in outcome.err  # rather than: made from other settings


@pytest.mark.slow
def test_in_a_process_of_its_own(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "trainers.pipeline", f"--run_dir={tmp_path}/run", "--model=nowhere.keras"],
        cwd=ROOT,
        env=quiet_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_tiny_networks_are_not_refused():
    """The unchanged network is accepted, so each error above comes from its own mistake."""
    assert Graph.from_model(tiny_network()).num_classes == 10


@pytest.mark.slow
def test_a_reader_that_has_had_enough_is_no_error():
    command = f"{sys.executable} -m trainers.search --help | head -n 1"
    done = subprocess.run(
        command, shell=True, cwd=ROOT, env=quiet_environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_a_flagfile_that_includes_itself(command, tmp_path):
    first, second = tmp_path / "first.cfg", tmp_path / "second.cfg"
    first.write_text(f"--lr=0.1\n--flagfile={second}\n")
    second.write_text(f"--flagfile={first}\n--budget=macs:0.5\n")
    outcome = command(pipeline, f"--run_dir={tmp_path}/run", f"--flagfile={first}")
    assert (outcome.code, "Traceback" in outcome.err, (tmp_path / "run").exists()) == (1, False, False), outcome
    assert f"error: {first} includes itself. Remove the line that does" in outcome.err


def test_a_flagfile_that_is_no_text(command, tmp_path):
    path = tmp_path / "mine.cfg"
    path.write_bytes(b"--lr=0.1\n\xff\xfe\n")
    outcome = command(pipeline, f"--run_dir={tmp_path}/run", f"--flagfile={path}")
    check(outcome, tmp_path / "run", f"{path} isn't a text in UTF-8")

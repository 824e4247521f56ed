"""Checks networks of `keras.applications` from graph to TFLite file, and writes the results as docs/MODELS.md.

    python -m benchmarks.models [--only=ResNet50,VGG16] [--work_dir=runs/models] [--write=docs/MODELS.md]

Each network is newly initialised, with a small input. The script finds out what can be searched, runs the supernet, and
takes one weight step and one architecture step. It builds and saves students of the smallest, the full and five random
shapes; their multiply-adds, counted layer by layer, and their parameters, counted by Keras, must be what the cost model
says. All students are loaded and run in a process that can't import this project, and one is converted to TFLite and
run by LiteRT. Finished networks aren't checked again.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from benchmarks.networks import count_macs, randomize
from tas_tf.cost.cost_model import CostModel
from tas_tf.cost.expected_cost import ExpectedCost
from tas_tf.cost.projections import projected_share
from tas_tf.decode.decode import smallest_shape
from tas_tf.deploy.lite_model import TFLiteModel
from tas_tf.deploy.tflite import export_tflite
from tas_tf.files import read_json, write_bytes, write_json
from tas_tf.graph.graph import Graph
from tas_tf.objectives.classification import Classification
from tas_tf.searching.step import CostTarget, Searcher
from tas_tf.space.shape import Shape
from tas_tf.space.space import MOST_PROJECTED, SearchSpace
from tas_tf.student.build import build_student
from tas_tf.supernet.build import build_supernet
from tas_tf.training.optimizers import arch_adam, sgd
from tas_tf.zoo.loading import load_network

#: Networks and the side of their images: the smallest that the network takes, at least 32.
NETWORKS = {
    "ResNet50": 32,
    "ResNet50V2": 32,
    "MobileNet": 32,
    "MobileNetV2": 32,
    "MobileNetV3Small": 32,
    "EfficientNetB0": 32,
    "EfficientNetV2B0": 32,
    "VGG16": 32,
    "DenseNet121": 32,
    "InceptionV3": 75,
    "Xception": 71,
    "NASNetMobile": 32,
    "ConvNeXtTiny": 32,
}
NUM_RANDOM, BATCH = 5, 4
#: Largest difference allowed, as a share of the largest output.
TOLERANCE = 1e-3
#: Loads every file of a folder in a process where this project can't be imported, and compares outputs.
_STRANGER = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras, numpy as np
try:
    import tas_tf
except ImportError:
    pass
else:
    sys.exit("this project can be imported")
differences = []
for name in sorted(os.listdir(".")):
    if name.endswith(".keras"):
        known = np.load(name.replace(".keras", ".npz"))
        outputs = np.asarray(keras.models.load_model(name, compile=False)(known["images"]))
        differences.append(np.abs(outputs - known["outputs"]).max() / np.abs(known["outputs"]).max())
print(len(differences), max(differences))
"""


@dataclass(frozen=True)
class Checked:
    """Results for one network.

    Attributes:
        name: Name in `keras.applications`.
        image_size: Side of the images.
        macs: Multiply-adds of the unpruned network.
        params: Parameters of the unpruned network.
        units: Number of searched width units.
        coupled: Number of units with several convolutions.
        stages: Number of blocks of each stage.
        frozen: Layers that keep their width, by reason.
        projected: Share of projections in the multiply-adds of random shapes if each block has its own width.
        smallest: Smallest reachable share of the multiply-adds.
        step_loss: Loss of the weight step.
        students: Number of shapes whose student was built, counted, saved and loaded elsewhere.
        keras_difference: Largest difference between a student and its file, as a share of the largest output.
        tflite_difference: Largest difference of the TFLite file, in the same unit.
        seconds: Seconds of all checks.
    """

    name: str
    image_size: int
    macs: int
    params: int
    units: int
    coupled: int
    stages: list[int]
    frozen: dict[str, list[str]]
    projected: float
    smallest: float
    step_loss: float
    students: int
    keras_difference: float
    tflite_difference: float
    seconds: float


def check(name: str, *, num_random: int = NUM_RANDOM) -> Checked:
    """Checks one network with the default search space.

    Args:
        name: One of `NETWORKS`.
        num_random: Number of random shapes besides the smallest and the full one.

    Raises:
        AssertionError: If a check fails.
    """
    started, size = time.monotonic(), NETWORKS[name]
    network = load_network(f"keras.applications.{name}", image_size=size)
    graph = Graph.from_model(network)
    space, free = SearchSpace.from_graph(graph), SearchSpace.from_graph(graph, couple_trunk=False)
    macs, params = CostModel(space), CostModel(space, "params")
    assert macs.full == count_macs(network), (macs.full, count_macs(network))
    assert params.full == network.count_params(), (params.full, network.count_params())
    smallest = smallest_shape(macs)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(BATCH, size, size, 3)).astype("float32")
    loss = take_step(space, images, np.arange(BATCH))
    keras.backend.clear_session()
    shapes = [smallest, Shape.full(space), *(Shape.random(space, seed) for seed in range(num_random))]
    with tempfile.TemporaryDirectory() as scratch:
        for number, shape in enumerate(shapes):
            save_student(space, shape, images, Path(scratch) / f"{number}.keras")
        count, keras_difference = run_elsewhere(Path(scratch))
        assert count == len(shapes)
        assert keras_difference < TOLERANCE, keras_difference
        last = Path(scratch) / f"{len(shapes) - 1}.keras"
        known = np.load(last.with_suffix(".npz"))
        student = keras.models.load_model(last, compile=False)
        lite = TFLiteModel(export_tflite(student, Path(scratch) / "student.tflite")).predict(images)
        tflite_difference = relative(lite, known["outputs"])
        assert tflite_difference < TOLERANCE, tflite_difference
    units = space.searched_units
    return Checked(
        name=name,
        image_size=size,
        macs=macs.full,
        params=params.full,
        units=len(units),
        coupled=sum(bool(unit.coupled_with) for unit in units),
        stages=[stage.blocks for stage in space.stages],
        frozen=frozen_layers(space),
        projected=projected_share(free),
        smallest=macs(smallest) / macs.full,
        step_loss=loss,
        students=len(shapes),
        keras_difference=keras_difference,
        tflite_difference=tflite_difference,
        seconds=round(time.monotonic() - started, 1),
    )


def frozen_layers(space: SearchSpace) -> dict[str, list[str]]:
    """Returns the layers that keep their width, by reason."""
    found: dict[str, list[str]] = {}
    for layer, reason in space.frozen.items():
        found.setdefault(_in_general(reason), []).append(layer)
    return found


def _in_general(reason: str) -> str:
    """Returns a reason without names of layers."""
    return re.sub(r"`\w+` \((\w+)\)", r"a \1 layer", re.sub(r"at `\w+`", "at a merge", reason))


def take_step(space: SearchSpace, images: np.ndarray, labels: np.ndarray) -> float:
    """Runs the supernet, takes a step of the weights and one of the logits; returns the loss of the weight step."""
    cost = CostModel(space)
    searcher = Searcher(
        build_supernet(space), Classification(space.graph.num_classes), ExpectedCost(cost), CostTarget(0.5)
    )
    searcher.compile(sgd(0.01, l2=5e-4), arch_adam(1e-3))
    logits = searcher.supernet(images, training=False)
    assert np.isfinite(logits).all()
    supernet = searcher.supernet
    variables = (*supernet.weight_variables, *supernet.architecture_variables)
    before = [variable.numpy() for variable in variables]
    batch = tf.constant(images), tf.constant(labels, tf.int32)
    tf.function(searcher.update_weights)(*batch, tf.constant(0))
    tf.function(searcher.update_logits)(*batch, tf.constant(1))
    after = [variable.numpy() for variable in variables]
    assert all(np.isfinite(value).all() for value in after)
    unmoved = [one for one, other in zip(before, after, strict=True) if one.any() and np.array_equal(one, other)]
    assert not unmoved, f"{len(unmoved)} variables didn't move"
    return float(searcher.get_metrics_result()["weight_loss"])


def save_student(space: SearchSpace, shape: Shape, images: np.ndarray, path: Path) -> None:
    """Builds the student of a shape, checks its cost, and saves it with its outputs for the images."""
    student = randomize(build_student(space, shape, logits=True))  # a softmax could hide differences
    counts = {"macs": count_macs(student), "params": student.count_params()}
    for kind, count in counts.items():
        predicted = CostModel(space, kind)(shape)
        assert predicted == count, (kind, predicted, count)
    student.save(path)
    np.savez(path.with_suffix(".npz"), images=images, outputs=np.asarray(student(images, training=False)))


def run_elsewhere(folder: Path) -> tuple[int, float]:
    """Loads the files of a folder without this project; returns their number and the largest difference."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-c", _STRANGER]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    count, difference = done.stdout.split()
    return int(count), float(difference)


def relative(outputs: np.ndarray, expected: np.ndarray) -> float:
    """Returns the largest difference, as a share of the largest output."""
    return float(np.abs(outputs - expected).max() / np.abs(expected).max())


def main() -> None:
    options = _parse()
    for name in options.only:
        result = Path(options.work_dir) / f"{name}.json"
        if not result.exists():
            print(f"{name} ...", flush=True)
            write_json(result, asdict(check(name)))
            keras.backend.clear_session()
        print(f"{name}: {read_json(result)}", flush=True)
    if options.write:
        rows = [Checked(**read_json(Path(options.work_dir) / f"{name}.json")) for name in options.only]
        write_bytes(options.write, markdown(rows).encode())


def markdown(rows: list[Checked]) -> str:
    """Returns the page on all networks."""
    largest = max(max(row.keras_difference, row.tflite_difference) for row in rows)
    lines = [
        "# Networks",
        "",
        "This page is generated by `python -m benchmarks.models --write=docs/MODELS.md`, with the package versions in",
        "requirements.txt. Each network of `keras.applications` was newly built for 10 classes and the given image",
        "size. For each network,",
        "",
        "- the supernet took one weight step and one architecture step;",
        f"- students of the smallest, the full and {NUM_RANDOM} random shapes were built, and their multiply-adds,",
        "  counted layer by layer, and their parameters equal those of the cost model;",
        "- the students' `.keras` files were loaded and run in a process that can't import this project;",
        "- one student was converted to a TFLite file and run by LiteRT.",
        "",
        f"No output of a file differs from Keras's by more than {largest:.1e} of the largest output.",
        "",
        "| network | image | MACs | parameters | width units | coupled | blocks by stage | smallest | projections |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- | ---: | ---: |",
    ]
    for row in rows:
        stages = ", ".join(map(str, row.stages)) or "none"
        lines.append(
            f"| {row.name} | {row.image_size} | {row.macs:,} | {row.params:,} | {row.units} | {row.coupled} | {stages} "
            f"| {row.smallest:.3f} | {row.projected:.0%} |"
        )
    lines += [
        "",
        "- *Coupled*: number of units with several convolutions, which must have the same number of filters.",
        "- *Smallest*: the smallest reachable share of the multiply-adds.",
        "- *Projections*: their share of the multiply-adds in random shapes if each block of a stage has its own",
        "  width. By default, and in the other columns, the blocks of a stage share one width (`--couple_trunk`) if",
        f"  projections would take more than {MOST_PROJECTED:.0%} at full width.",
        "",
        "These layers keep their width:",
        "",
        "| network | layers | reason |",
        "| --- | --- | --- |",
    ]
    lines += [f"| {row.name} | {_names(names)} | {reason} |" for row in rows for reason, names in row.frozen.items()]
    lines += [
        "",
        "| network | loss of the weight step | students | `.keras` differs by | TFLite differs by | seconds |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row.name} | {row.step_loss:.2f} | {row.students} | {_small(row.keras_difference)} "
        f"| {_small(row.tflite_difference)} | {row.seconds:.0f} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def _names(names: list[str]) -> str:
    """Returns the first names, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(f"`{name}`" for name in names[:3]) + more


def _small(difference: float) -> str:
    return f"{difference:.1e}" if difference else "0"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", type=lambda text: text.split(","), default=list(NETWORKS), help="comma-separated names"
    )
    parser.add_argument("--work_dir", default="runs/models", help="folder for the measurements")
    parser.add_argument("--write", help="path of the page to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()

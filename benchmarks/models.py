"""Checks networks of `keras.applications` from graph to TFLite file, and writes what came out as docs/MODELS.md.

    python -m benchmarks.models [--only=ResNet50,VGG16] [--work_dir=runs/models] [--write=docs/MODELS.md]

For each network, freshly initialised and with a small input: what can be searched; the supernet run forward, with one
weight step and one architecture step; students of the smallest, the full and five random shapes, each built, its
multiply-adds counted layer by layer and its parameters by Keras, then saved; all of them loaded and run in a process
that can't import this project; one converted to TFLite and run by LiteRT. A network that is done isn't checked again.
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
from tas_tf.deploy.tflite import TFLiteModel, export_tflite
from tas_tf.files import read_json, write_bytes, write_json
from tas_tf.graph.graph import Graph
from tas_tf.searching.step import CostTarget, Searcher
from tas_tf.space.shape import Shape
from tas_tf.space.space import MOST_PROJECTED, SearchSpace
from tas_tf.student.build import build_student
from tas_tf.supernet.build import build_supernet
from tas_tf.training.optimizers import arch_adam, sgd
from tas_tf.zoo.loading import load_network

#: Networks and the side of their images: what they take at least, or 32.
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
#: Largest difference that is accepted, as a share of the largest output.
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
    """What one network showed.

    Attributes:
        name: In `keras.applications`.
        image_size: Side of the images.
        macs: Of the unpruned network.
        params: Of the unpruned network.
        units: Searched widths.
        coupled: Units of several convolutions.
        stages: Blocks of each stage.
        frozen: Reasons with the layers they hold for.
        projected: Share of the multiply-adds of random shapes that projections take where blocks have widths of their
            own.
        smallest: Least share of the multiply-adds that can be reached.
        step_loss: Loss of the weight step.
        students: Shapes whose student was built, counted, saved and loaded elsewhere.
        keras_difference: Largest one between a student and its file, as a share of the largest output.
        tflite_difference: The same of the TFLite file.
        seconds: All of it took.
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
    """Checks one network as it is searched by default.

    Args:
        name: One of `NETWORKS`.
        num_random: Random shapes besides the smallest and the full one.

    Raises:
        AssertionError: Something doesn't hold.
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
    """The layers that each reason holds for."""
    found: dict[str, list[str]] = {}
    for layer, reason in space.frozen.items():
        found.setdefault(_in_general(reason), []).append(layer)
    return found


def _in_general(reason: str) -> str:
    """A reason without the names that stand in it."""
    return re.sub(r"`\w+` \((\w+)\)", r"a \1 layer", re.sub(r"at `\w+`", "at a merge", reason))


def take_step(space: SearchSpace, images: np.ndarray, labels: np.ndarray) -> float:
    """Runs the supernet forward and takes one step of weights and one of logits; the loss of the first."""
    cost = CostModel(space)
    searcher = Searcher(build_supernet(space), ExpectedCost(cost), CostTarget(0.5))
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
    """Builds the student of a shape, counts it, saves it and, beside it, what it computes."""
    student = randomize(build_student(space, shape, logits=True))  # a softmax could hide differences
    counts = {"macs": count_macs(student), "params": student.count_params()}
    for kind, count in counts.items():
        predicted = CostModel(space, kind)(shape)
        assert predicted == count, (kind, predicted, count)
    student.save(path)
    np.savez(path.with_suffix(".npz"), images=images, outputs=np.asarray(student(images, training=False)))


def run_elsewhere(folder: Path) -> tuple[int, float]:
    """Loads the files of a folder without this project; how many, and the largest difference."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-c", _STRANGER]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    count, difference = done.stdout.split()
    return int(count), float(difference)


def relative(outputs: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference, as a share of the largest output."""
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
    """The page of all networks."""
    largest = max(max(row.keras_difference, row.tflite_difference) for row in rows)
    lines = [
        "# Networks",
        "",
        "Written by `python -m benchmarks.models --write=docs/MODELS.md` from what it measured; versions as in",
        "requirements.txt. Each network of `keras.applications` was built afresh for 10 classes and the image size",
        "given. Behind each row stand: one weight step and one architecture step of the supernet; students of the",
        f"smallest, the full and {NUM_RANDOM} random shapes, whose multiply-adds counted layer by layer and whose",
        "parameters are what the cost model says; their `.keras` files, loaded and run where this project can't be",
        f"imported; and one TFLite file, run by LiteRT. Largest difference of any file: {largest:.1e} of the largest",
        "output.",
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
        "Coupled: units of several convolutions, which must have the same number of filters. Smallest: the least share",
        "of the multiply-adds that can be reached. Projections: the share that they take in random shapes where blocks",
        "of a stage have widths of their own. Blocks of a stage get one width by default (`--couple_trunk`), as here,",
        f"where projections would take more than {MOST_PROJECTED:.0%} at full width.",
        "",
        "What keeps its width, and why:",
        "",
        "| network | layers | reason |",
        "| --- | --- | --- |",
    ]
    lines += [f"| {row.name} | {_names(names)} | {reason} |" for row in rows for reason, names in row.frozen.items()]
    lines += [
        "",
        "| network | loss of a step | students | `.keras` differs by | TFLite differs by | seconds |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row.name} | {row.step_loss:.2f} | {row.students} | {_small(row.keras_difference)} "
        f"| {_small(row.tflite_difference)} | {row.seconds:.0f} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def _names(names: list[str]) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(f"`{name}`" for name in names[:3]) + more


def _small(difference: float) -> str:
    return f"{difference:.1e}" if difference else "0"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", type=lambda text: text.split(","), default=list(NETWORKS), help="names with commas between"
    )
    parser.add_argument("--work_dir", default="runs/models", help="where what was measured is kept")
    parser.add_argument("--write", help="page to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()

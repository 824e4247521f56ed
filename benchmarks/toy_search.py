"""Tests whether the search finds a known shape, and how often random search at the same cost does.

    python -m benchmarks.toy_search [--seeds=0,1,2,3,4] [--tries=0] [--ladder] [--json]

Images have a code of seven noisy levels in their top row and, below it, two bright lines that are near (3 rows apart)
or far (7 or 8 rows). The label says which of eight codes it is, and whether the lines are near. The network has a stage
of three blocks that look only along columns, a 1x1 `mixer`, and a `reader` that looks only along rows. Then it averages
over all rows. This determines the shape that the network needs:

- **Depth 2 of 3.** One block sees a row and its two neighbours. No window of one block contains both lines if they are
  3 rows apart. Lines also keep clear of the code and the border, so near and far lines give the same row features in
  different order. Their mean can't tell near from far, whatever the weights. Two blocks see 5 rows, which contain both
  near lines but not both far ones.
- **All 8 filters of the reader.** The codes are rows of a Hadamard matrix and form a regular simplex: seven directions
  of equal weight, with equal noise in each. Linear scores of eight codes need seven numbers, and near or far needs one
  more. Each missing number moves codes closer together while the noise stays.
- **3/10 of the other units.** Detecting lines takes one of the twelve filters of a block (brightness above a threshold
  on both sides). The mixer passes two channels through a ReLU, which takes four of its six filters.

The budget is exactly the cost of this shape, so cost spent elsewhere is missing where it is needed. `--ladder` trains
shapes that each lack one thing, and prints their accuracies.

Random shapes have the same budget. Random search trains shapes briefly until it has used as many multiply-adds as the
search, and takes the best one by held-out accuracy. All seeds use the same settings.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict, dataclass, replace

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from keras import layers
from rich.console import Console
from rich.table import Table
from scipy.linalg import hadamard

from tas_tf.baselines.random_shapes import best_random_shape
from tas_tf.baselines.shapes import baseline_shape
from tas_tf.cost.budget import Budget
from tas_tf.cost.cost_model import CostModel
from tas_tf.data.augmentation import Augmentation
from tas_tf.data.preprocessing import Preprocessing
from tas_tf.data.source import make_array_source
from tas_tf.data.task import Task
from tas_tf.graph.graph import Graph
from tas_tf.searching.monitor import SearchResult
from tas_tf.searching.run import run_search
from tas_tf.searching.settings import SearchSettings
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.training.network import train_network
from tas_tf.training.settings import TrainSettings
from tas_tf.training.strategy import make_strategy

CODES = hadamard(8)[:, 1:]
ROWS, COLUMNS = 14, CODES.shape[1]
NEAR, FAR = 3, (7, 8)
#: Number of training and test images.
TRAIN, TEST = 4000, 1000
#: Rows without lines at the top, where the code is, and at the bottom.
MARGINS = 3, 2
#: Amplitude and noise of the levels, on a scale of 0 to 255; with this noise, every direction of the codes matters.
AMPLITUDE, NOISE = 40, 32

#: How far a shape's cost may stay below the budget, as a share of the unpruned cost.
TOLERANCE = 0.05
#: Random search uses seeds that are higher than the search's by this number.
RANDOM_SEED = 10
TEACHER = TrainSettings(epochs=6, warmup_epochs=0, batch_size=64, l2=1e-4)
SEARCH = SearchSettings(
    epochs=16,
    batch_size=64,
    l2=1e-4,
    tolerance=TOLERANCE,
    cost_weight=1.0,
    temperature_start=1.0,
    from_teacher=True,
    calibration_batches=4,
    held_out_limit=500,
)
STUDENT = TrainSettings(epochs=8, warmup_epochs=0, batch_size=64, l2=1e-4)


def draw_images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws images `[count, 14, 7, 1]`, uint8, and labels `[count]`: twice the code's number, plus 1 for near lines."""
    rng = np.random.default_rng(seed)
    code, near = rng.integers(0, len(CODES), count), rng.integers(0, 2, count)
    levels = 128 + AMPLITUDE * CODES[code] + rng.normal(0, NOISE, (count, COLUMNS))
    images = np.zeros((count, ROWS, COLUMNS, 1), np.uint8)
    images[:, 0, :, 0] = np.clip(np.round(levels), 0, 255)
    gap = np.where(near, NEAR, rng.integers(FAR[0], FAR[1] + 1, count))
    first = rng.integers(MARGINS[0], ROWS - MARGINS[1] - gap)
    for row in (first, first + gap):
        images[np.arange(count), row] = 255
    return images, 2 * code + near


def make_task(seed: int = 0) -> Task:
    """Returns the images as a data set; the seed determines order and halves, but not the images."""
    names = [f"code {label // 2}, {'near' if label % 2 else 'far'}" for label in range(2 * len(CODES))]
    train, test = draw_images(TRAIN, 1), draw_images(TEST, 2)
    source = make_array_source("toy", names, train=train, test=test, flip_ok=False)
    preprocessing = Preprocessing.fit(source, "standardise")
    return Task(source, preprocessing, Augmentation(), np.arange(TRAIN), seed)


def make_network() -> keras.Model:
    """Builds the unpruned network."""

    def conv_bn(x, filters: int, size: int | tuple[int, int], name: str, padding: str = "same"):
        x = layers.Conv2D(filters, size, padding=padding, use_bias=False, name=name)(x)
        return layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(x)

    images = keras.Input((ROWS, COLUMNS, 1), name="pixels")
    x = conv_bn(images, 2, 1, "stem")
    for number in (1, 2, 3):
        y = layers.ReLU(name=f"relu{number}")(conv_bn(x, 40, (3, 1), f"inner{number}"))
        x = layers.Add(name=f"block{number}")([x, conv_bn(y, 2, 1, f"outer{number}")])
    x = layers.ReLU(name="mixer_relu")(conv_bn(x, 20, 1, "mixer"))
    x = conv_bn(x, len(CODES), (1, COLUMNS), "reader", "valid")
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(images, layers.Dense(2 * len(CODES), name="classifier")(x), name="toy")


def make_space() -> SearchSpace:
    """Builds the search space of even widths, which leaves the trunk's two channels unchanged."""
    return SearchSpace.from_graph(Graph.from_model(make_network()), width_divisor=2)


def make_shape(space: SearchSpace, *, depth: int, **widths: int) -> Shape:
    """Returns a shape with this depth and these widths; other units have their smallest width."""
    return Shape.from_counts(space, [widths.get(unit.name, unit.candidates[0]) for unit in space.units], [depth])


def known_answer(space: SearchSpace) -> Shape:
    """Returns the smallest shape that the images need."""
    return make_shape(space, depth=2, reader=len(CODES))


def is_answer(shape: Shape, space: SearchSpace) -> bool:
    """Whether a shape is the known one; widths in a dropped block don't count."""
    known = known_answer(space)
    dropped = {"inner3"}
    return shape.depths == known.depths and all(
        shape.widths[name] == width for name, width in known.widths.items() if name not in dropped
    )


def search(space: SearchSpace, task: Task, seed: int) -> SearchResult:
    """Trains the unpruned network, the first step of the method, and starts the search from it."""
    strategy, whole = make_strategy("one_device"), Shape.full(space)
    teacher = train_network(space, whole, task, replace(TEACHER, seed=seed), strategy=strategy, verbose=0).model
    budget = Budget.parse(f"macs:{CostModel(space)(known_answer(space))}")
    return run_search(space, task, budget, replace(SEARCH, seed=seed), strategy=strategy, teacher=teacher, verbose=0)


def random_shapes(space: SearchSpace, count: int) -> list[Shape]:
    """Returns random shapes with the cost of the known one."""
    cost = CostModel(space)
    options = {"limit": cost(known_answer(space)), "tolerance": int(TOLERANCE * cost.full)}
    return [baseline_shape("random", cost, seed=[count, number], **options) for number in range(count)]


def random_search(space: SearchSpace, task: Task, seed: int, tries: int = 0) -> Shape:
    """Returns the best of several random shapes after a brief training; with 0 tries, as many as cost one search."""
    cost = CostModel(space)
    best = best_random_shape(
        cost,
        task,
        replace(STUDENT, seed=RANDOM_SEED + seed),
        count=tries or equal_tries(cost),
        limit=cost(known_answer(space)),
        tolerance=int(TOLERANCE * cost.full),
        held_out_limit=SEARCH.held_out_limit,
        strategy=make_strategy("one_device"),
        verbose=0,
    )
    return best.shape


def equal_tries(cost: CostModel) -> int:
    """Returns how many brief trainings cost as much as a search, which runs the unpruned network on both halves."""
    return round(2 * SEARCH.epochs * cost.full / (STUDENT.epochs * cost(known_answer(cost.space))))


def accuracy(space: SearchSpace, shape: Shape, task: Task, seed: int) -> float:
    """Returns the test accuracy of a shape trained from scratch, without distillation."""
    settings = replace(STUDENT, seed=seed)
    return train_network(space, shape, task, settings, strategy=make_strategy("one_device"), verbose=0).metrics[
        "accuracy"
    ]


@dataclass(frozen=True)
class Row:
    """Results with one seed.

    Attributes:
        seed: Seed of data set, trainings and search.
        found: Whether the search found the known shape.
        searched: Widths and depth that the search found.
        depth_chance: Probability of the known depth according to the logits, before decoding applies the budget.
        accuracy: Test accuracy of the searched shape, trained from scratch.
        random_found: Whether random search found the known shape.
        random: Widths and depth that random search found.
        random_accuracy: Test accuracy of the random shape, trained from scratch.
    """

    seed: int
    found: bool
    searched: str
    depth_chance: float
    accuracy: float
    random_found: bool
    random: str
    random_accuracy: float


def measure(seed: int, tries: int) -> Row:
    """Runs the search and random search with one seed."""
    space, task = make_space(), make_task(seed)
    result, tried = search(space, task, seed), random_search(space, task, seed, tries)
    (depths,) = result.supernet.gates.probabilities()[1].numpy()
    return Row(
        seed=seed,
        found=is_answer(result.shape, space),
        searched=describe(result.shape, space),
        depth_chance=round(float(depths[1]), 3),
        accuracy=accuracy(space, result.shape, task, seed),
        random_found=is_answer(tried, space),
        random=describe(tried, space),
        random_accuracy=accuracy(space, tried, task, seed),
    )


def describe(shape: Shape, space: SearchSpace) -> str:
    """Describes depth and searched widths in one line, without dropped blocks."""
    (depth,) = shape.depths.values()
    kept = [unit.name for unit in space.searched_units if space.block_of.get(unit.name, ("", 1))[1] <= depth]
    return f"depth {depth}, " + ", ".join(f"{name} {shape.widths[name]}" for name in kept)


def ladder(space: SearchSpace) -> dict[str, Shape]:
    """Returns the known shape, the unpruned one, and shapes that each lack one necessary thing."""
    return {
        "unpruned": Shape.full(space),
        "known answer": known_answer(space),
        **{f"reader {width}": make_shape(space, depth=2, reader=width) for width in (6, 4, 2)},
        "depth 1, else unpruned": Shape.from_counts(space, [unit.width for unit in space.units], [1]),
    }


def main() -> None:
    options = _parse()
    space = make_space()
    if options.ladder:
        report = {name: accuracy(space, shape, make_task(), 0) for name, shape in ladder(space).items()}
    else:
        rows = [measure(seed, options.tries) for seed in options.seeds]
        report = {"answer": describe(known_answer(space), space), "rows": [asdict(row) for row in rows]}
        report["random_share"] = sum(is_answer(shape, space) for shape in random_shapes(space, 5000)) / 5000
    if options.json:
        json.dump(report, sys.stdout, indent=1)
        print()
    else:
        _print(report)


def _print(report: dict) -> None:
    console = Console(width=160)
    if "rows" not in report:
        for name, value in report.items():
            console.print(f"{name:24} {value:.3f}", highlight=False)
        return
    table = Table(
        *("seed", "searched", "known?", "chance of 2 blocks", "accuracy", "best random", "known?", "accuracy")
    )
    for row in report["rows"]:
        table.add_row(
            str(row["seed"]),
            *(row["searched"], "yes" if row["found"] else "no", f"{row['depth_chance']:.2f}", f"{row['accuracy']:.3f}"),
            *(row["random"], "yes" if row["random_found"] else "no", f"{row['random_accuracy']:.3f}"),
        )
    console.print(f"Known answer: {report['answer']}", highlight=False)
    console.print(table)
    console.print(f"Random shapes that are the known one: {report['random_share']:.2%}", highlight=False)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=_numbers, default=list(range(5)), help="comma-separated seeds")
    parser.add_argument("--tries", type=int, default=0, help="random shapes to try; 0: as many as cost one search")
    parser.add_argument("--ladder", action="store_true", help="instead, train shapes that each lack one thing")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()

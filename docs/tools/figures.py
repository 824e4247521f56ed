"""Draws the figures of docs/CONCEPTS.md from the code: `make docs` runs `python docs/tools/figures.py`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tas_tf.quiet import import_tensorflow

import_tensorflow()

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from tas_tf.cost.cost_model import CostModel
from tas_tf.proposals.shortlist import Proposer
from tas_tf.published import shape_file
from tas_tf.race.settings import RaceSettings, Rounds
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.supernet.layers.interpolation import widening_taps
from tas_tf.zoo.loading import load_network

_INK, _PALE, _ACCENT = "#33415c", "#d5dbe6", "#3f51b5"
_STYLE = {
    "svg.hashsalt": "tas_tf",  # the same file in each run
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def main() -> None:
    """Writes all figures into docs/images, or into the folder that the command line names."""
    (folder,) = map(Path, sys.argv[1:] or [ROOT / "docs" / "images"])
    figures = {
        "chain": draw_chain,
        "shapes": draw_shapes,
        "race": draw_race,
        "mixing": draw_mixing,
        "speed": draw_speed,
    }
    plt.switch_backend("svg")
    with plt.rc_context(_STYLE):
        for name, draw in figures.items():
            figure = draw()
            figure.savefig(folder / f"{name}.svg", bbox_inches="tight", metadata={"Date": None}, facecolor="white")
            plt.close(figure)


def draw_chain() -> Figure:
    """From a model to files: what each step hands to the next."""
    steps = ["your model", "graph", "search space", "shapes within\nthe budget", "race", "student", "files"]
    below = [
        "trained",
        "what acts on\nchannels how",
        "widths and\ndepths",
        "exact cost",
        "brief\ntrainings",
        "distilled",
    ]
    figure, axes = plt.subplots(figsize=(10, 1.3))
    axes.axis("off")
    for place, text in enumerate(steps):
        box = {"boxstyle": "round,pad=0.5", "facecolor": _PALE if place % 6 else "white", "edgecolor": _INK}
        axes.text(place, 1, text, ha="center", va="center", bbox=box, color=_INK)
    for place, text in enumerate([*below, "checked\nand timed"]):
        axes.text(place, 0, text, ha="center", va="center", color=_INK, fontsize=8)
    for place in range(len(steps) - 1):
        arrow = {"arrowstyle": "->", "color": _INK}
        axes.annotate("", (place + 0.58, 0.5), (place + 0.42, 0.5), arrowprops=arrow)
    axes.set(xlim=(-0.5, len(steps) - 0.5), ylim=(-0.5, 1.6))
    return figure


def draw_shapes() -> Figure:
    """Some shapes of ResNet-20 with at most half of its multiply-adds."""
    space = SearchSpace.from_model(load_network("resnet20", image_size=32))
    cost = CostModel(space)
    proposals = {one.name: one.shape for one in Proposer(cost, cost.full // 2).shortlist(8)}
    shown = {name: proposals[name] for name in ("uniform", "uniform 2/2/2", "early", "late") if name in proposals}
    shown["published by the authors"] = Shape.load(shape_file("published/cifar10-resnet20"))
    figure, rows = plt.subplots(len(shown), 1, figsize=(7, 1.0 * len(shown)), sharex=True, layout="constrained")
    full = [unit.width for unit in space.units]
    for axes, (name, shape) in zip(rows, shown.items(), strict=True):
        widths = [0 if _is_dropped(space, shape, unit.name) else shape.widths[unit.name] for unit in space.units]
        axes.bar(range(len(full)), full, color=_PALE, width=0.8)
        axes.bar(range(len(full)), widths, color=_ACCENT, width=0.8)
        blocks = "/".join(str(shape.depths[stage.name]) for stage in space.stages)
        title = f"{name}: {cost(shape) / cost.full:.3f} of the multiply-adds, blocks {blocks}"
        axes.set_title(title, loc="left", fontsize=9)
        axes.set(yticks=[16, 64], xticks=[])
    rows[-1].set_xlabel("convolutions of ResNet-20 in order; filters kept of all, none where a block is dropped")
    return figure


def _is_dropped(space: SearchSpace, shape: Shape, name: str) -> bool:
    stage, block = space.block_of.get(name, ("", 0))
    return bool(stage) and block > shape.depths[stage]


def draw_race() -> Figure:
    """Rounds of a race of eight shapes: how many are left, and how long each is trained."""
    rounds = Rounds.plan(RaceSettings(proposals=8), proposals=8, student_steps=5000)
    figure, axes = plt.subplots(figsize=(7, 2.2))
    start = 0
    for number, (entries, steps) in enumerate(zip(rounds.entries, rounds.steps, strict=True), 1):
        for shape in range(entries):
            axes.barh(shape, steps * 0.97, left=start, height=0.7, color=_ACCENT if shape == 0 else _PALE)
        text = f"round {number}:\n{entries} shapes"
        axes.text(start + steps / 2, max(rounds.entries) + 0.1, text, ha="center", va="bottom", fontsize=8)
        start += steps
    axes.barh(0, start * 0.5, left=start, height=0.7, color=_ACCENT, hatch="//", edgecolor="white")
    axes.text(start * 1.02, -1.2, "the winner goes on as the student", fontsize=8)
    axes.spines["left"].set_visible(False)
    axes.set(yticks=[], xlabel="steps of training of each shape", ylim=(-1.6, max(rounds.entries) + 1.6))
    return figure


def draw_mixing() -> Figure:
    """Features of two widths, resampled to one width and added up with the weights that were drawn."""
    widths, target, channels, weights = (5, 8), 8, 8, (0.35, 0.65)
    taps, shares = widening_taps(np.array([widths], np.int32), np.array([target], np.int32), channels)
    maps = np.zeros((2, channels, channels))
    for drawn in range(2):
        for tap in range(2):
            np.add.at(maps[drawn], (range(channels), taps[0, drawn, tap]), shares[0, drawn, tap])
    figure, rows = plt.subplots(1, 3, figsize=(7, 2.6), layout="constrained")
    titles = [f"{weight} x width {width}" for weight, width in zip(weights, widths, strict=True)]
    mixed = weights[0] * maps[0] + weights[1] * maps[1]
    for axes, title, image in zip(rows, [*titles, "sum: one linear map"], [*maps, mixed], strict=True):
        axes.imshow(image, cmap="Blues", vmin=0, vmax=1)
        axes.set_title(title, fontsize=9)
        axes.set(xlabel="channel read", xticks=[0, 7], yticks=[0, 7])
    rows[0].set_ylabel("channel made")
    return figure


def draw_speed() -> Figure:
    """Shapes of ResNet-56 that take equal time have unequal multiply-adds."""
    figure, axes = plt.subplots(figsize=(4.5, 3.4), layout="constrained")
    for name, marker, colour in (("fp32", "o", _ACCENT), ("int8", "s", _INK)):
        rows = json.loads(
            (ROOT / f"benchmarks/records/latency/published/{name}.json").read_text(encoding="utf-8")
        ).values()
        places = [row["macs"] for row in rows], [row["latency"] for row in rows]
        axes.scatter(*places, marker=marker, color=colour, label=name)
    axes.plot([0, 0.65], [0, 0.65], color=_PALE, zorder=0)
    axes.set(xlabel="share of the multiply-adds", ylabel="share of the latency", xlim=(0, 0.65), ylim=(0, 0.65))
    axes.legend(frameon=False)
    return figure


if __name__ == "__main__":
    main()

"""Tables and a plot of the comparison, from what its runs measured."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from scipy import stats

from tas_tf.cli.document import with_lines
from tas_tf.files import read_json, write_bytes

RECORDS = Path(__file__).parent / "records"
RECIPE = "recipe"
_DOCS = Path(__file__).parents[1] / "docs"
_BEGIN, _END = "<!-- comparison: made by `make results` -->", "<!-- end of comparison -->"
_PLOT = "images/comparison.png"

#: What one run measured.
Record = Mapping[str, float]
#: Records by case and budget, method, and seed.
Records = Mapping[tuple[str, str], Mapping[str, Mapping[int, Record]]]


def record_path(case: str, budget: str, method: str, seed: int) -> Path:
    """Where the measurements of a run are kept."""
    return RECORDS / case / budget.replace(":", "_") / method / f"seed{seed}.json"


def read_records() -> Records:
    """All records that are kept."""
    found: dict[tuple[str, str], dict[str, dict[int, Record]]] = {}
    for path in sorted(RECORDS.rglob("seed*.json")):
        *_, case, budget, method, _ = path.parts
        seeds = found.setdefault((case, budget.replace("_", ":")), {}).setdefault(method, {})
        seeds[int(path.stem.removeprefix("seed"))] = read_json(path)
    return found


def write_results() -> None:
    """Writes tables and plot into the documentation."""
    path = _DOCS / "RESULTS.md"
    write_bytes(path, with_lines(path.read_text(), [*tables(), "", f"![]({_PLOT})"], _BEGIN, _END).encode())
    plot(read_records(), _DOCS / _PLOT)


def tables() -> list[str]:
    """One table for each case and budget, and one of mean ranks, as lines of Markdown."""
    records = read_records()
    lines = [line for cell, methods in records.items() for line in _table(cell, methods)]
    return [*lines, *_ranks(records)]


def _table(cell: tuple[str, str], methods: Mapping[str, Mapping[int, Record]]) -> Iterator[str]:
    ours = methods.get(RECIPE, {})
    teachers = {record["teacher_accuracy"] for seeds in methods.values() for record in seeds.values()}
    shown = ", ".join(f"{100 * accuracy:.2f}" for accuracy in sorted(teachers))
    yield f"\n**{cell[0]}, `{cell[1]}`** (teachers: {shown} %)\n"
    yield "| method | seeds | test accuracy | below the recipe | MACs | fp32 | int8 | epochs | seconds |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for method in sorted(methods, key=lambda name: -_mean(methods[name], "accuracy")):
        seeds = methods[method]
        paired = [
            100 * (ours[seed]["accuracy"] - seeds[seed]["accuracy"]) for seed in sorted(ours.keys() & seeds.keys())
        ]
        figures = [
            str(len(seeds)),
            f"{100 * _mean(seeds, 'accuracy'):.2f} %",
            "" if method == RECIPE or not paired else _interval(paired),
            f"{statistics.mean(one['macs'] / one['full_macs'] for one in seeds.values()):.3f}",
            *(f"{_speed_up(seeds, kind):.2f}x" for kind in ("fp32", "int8")),
            f"{_mean(seeds, 'epochs'):.0f}",
            f"{_mean(seeds, 'seconds'):.0f}",
        ]
        yield f"| {method} | {' | '.join(figures)} |"


def _ranks(records: Records) -> Iterator[str]:
    """Mean ranks over the cells and seeds that all of the methods have."""
    common = set.intersection(*(set(methods) for methods in records.values())) if records else set()
    ranks: dict[str, list[float]] = {method: [] for method in sorted(common)}
    for methods in records.values():
        for seed in set.intersection(*(set(methods[method]) for method in common)) if common else ():
            placed = stats.rankdata([-methods[method][seed]["accuracy"] for method in ranks])
            for method, rank in zip(ranks, placed, strict=True):
                ranks[method].append(float(rank))
    if len(ranks) > 1 and all(ranks.values()):
        yield "\n**Mean rank**, 1 is best\n"
        yield "| method | rank | runs |"
        yield "| --- | ---: | ---: |"
        for method in sorted(ranks, key=lambda name: statistics.mean(ranks[name])):
            yield f"| {method} | {statistics.mean(ranks[method]):.2f} | {len(ranks[method])} |"


def plot(records: Records, path: Path) -> None:
    """Draws accuracy over latency, one panel for each case and budget, and one point for each method and seed.

    Args:
        records: What was measured.
        path: Where to write the picture.
    """
    from matplotlib.figure import Figure  # an extra, which the tables don't need

    figure = Figure(figsize=(5 * max(1, len(records)), 4), layout="constrained")
    axes = figure.subplots(1, max(1, len(records)), squeeze=False)[0]
    names = sorted({method for methods in records.values() for method in methods})
    for panel, (cell, methods) in zip(axes, records.items(), strict=False):
        for number, method in enumerate(names):
            if seeds := methods.get(method):
                style = {"marker": "o^sDvP*X<>hp"[number % 12], "color": f"C{number % 10}", "linestyle": "none"}
                latencies = [record["fp32_ms"] for record in seeds.values()]
                panel.plot(latencies, [100 * record["accuracy"] for record in seeds.values()], label=method, **style)
        panel.set(title=f"{cell[0]}, {cell[1]}", xlabel="fp32 latency, ms (one thread)", ylabel="test accuracy, %")
        panel.locator_params(axis="x", nbins=4)
        panel.grid(alpha=0.3)
    if records:
        # Of the panel with most methods, beside the last one.
        handles = max((panel.get_legend_handles_labels() for panel in axes), key=lambda found: len(found[1]))
        axes[-1].legend(*handles, fontsize="small", bbox_to_anchor=(1.02, 1), loc="upper left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _mean(seeds: Mapping[int, Record], name: str) -> float:
    return statistics.mean(record[name] for record in seeds.values())


def _speed_up(seeds: Mapping[int, Record], kind: str) -> float:
    return statistics.mean(one[f"teacher_{kind}_ms"] / one[f"{kind}_ms"] for one in seeds.values())


def _interval(values: list[float]) -> str:
    """The mean and, from two values on, its 95 % interval."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:+.2f}"
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / np.sqrt(len(values))
    return f"{mean:+.2f} ± {half:.2f}"

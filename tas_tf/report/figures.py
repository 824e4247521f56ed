"""Figures of a report: widths and depths kept, the race, the search by epoch, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.patches import Patch

from tas_tf.behaviour.counts import Calibration
from tas_tf.board.bars import draw_depths, draw_widths
from tas_tf.report.drawing import (
    FAINT,
    INK,
    NARROW,
    RIVAL,
    STUDENT,
    TEACHER,
    WIDE,
    Drawing,
    label_epochs,
    legend_above,
    render,
    scaled,
)
from tas_tf.report.formatting import KIND_NAMES
from tas_tf.report.latencies import STUDENT as STUDENT_NAME
from tas_tf.report.latencies import Prediction, predictions
from tas_tf.report.scores import Score, score_of


def draw_all(report: Mapping) -> list[Drawing]:
    """Draws every figure that the report has data for."""
    drawings = []
    shape, score = report["shape"] or {}, score_of(report)
    if shape.get("units"):
        drawings.append(_draw_widths(shape["units"]))
    if shape.get("stages"):
        drawings.append(_draw_depths(shape["stages"]))
    speedups = {format: value for format, value in report["comparison"]["speedup"].items() if value is not None}
    if len(speedups) > 1:
        drawings.append(_draw_speedups(speedups, report["comparison"]["macs_reduction"]))
    history = {name: values for name, values in (report["history"] or {}).items() if values}
    search = report["search"] or {}
    kind = search.get("budget_kind", "macs")
    if f"expected_{kind}" in history or f"argmax_{kind}" in history:
        drawings.append(_draw_cost_history(history, kind, search.get(f"budget_{kind}")))
    if shapes := predictions(report):
        drawings.append(_draw_latencies(shapes, (report.get("latency") or {}).get("budget_share")))
    if len({lap["proposal"] for lap in search.get("laps") or ()}) > 1:  # a single shape has no rivals
        drawings.append(_draw_race(search["laps"], search["proposal"], search["rate_factor"]))
    if f"held_out_{score.name}" in history:
        drawings.append(_draw_score_history(history[f"held_out_{score.name}"], score))
    return drawings


def draw_calibration(teacher: Calibration, student: Calibration) -> Drawing:
    """Draws accuracy over confidence of both networks; larger points stand for more images."""
    named = {"teacher": (teacher, TEACHER, "s"), "student": (student, STUDENT, "o")}
    filled = {name: [one for one in each.bins if one.images] for name, (each, _, _) in named.items()}

    def draw(axes: Axes) -> None:
        axes.plot([0, 100], [0, 100], color=FAINT, linewidth=1.5, label="perfect")
        for name, (_, colour, marker) in named.items():
            bins = filled[name]
            most = max((one.images for one in bins), default=1)
            places = [100 * one.confidence for one in bins], [100 * one.accuracy for one in bins]
            sizes = [14 + 90 * one.images / most for one in bins]
            axes.scatter(*places, sizes, colour, marker=marker, alpha=0.8, label=name)
        axes.set_xlabel("confidence, percent")
        axes.set_ylabel("right, percent")
        axes.set_xlim(0, 102)
        axes.set_ylim(0, 104)
        legend_above(axes, markerscale=0.7)

    def told(name: str) -> str:
        return ", ".join(f"{100 * one.confidence:.0f} and {100 * one.accuracy:.0f}" for one in filled[name])

    alt = f"Percent of confidence and of right answers. Teacher: {told('teacher')}. Student: {told('student')}."
    return render("Right answers by confidence", alt, draw, size=NARROW)


def _draw_widths(units: Sequence[Mapping]) -> Drawing:
    def draw(axes: Axes) -> None:
        draw_widths(axes, units, full=FAINT, kept=STUDENT, edge=INK)
        axes.grid(axis="x", visible=False)
        handles = [Patch(color=FAINT, label="full"), Patch(color=STUDENT, label="kept")]
        if any(unit["dropped"] for unit in units):
            handles.append(Patch(facecolor=FAINT, edgecolor=INK, hatch="////", label="in a dropped block"))
        legend_above(axes, handles=handles)

    kept = [unit for unit in units if not unit["dropped"]]
    share = sum(unit["kept"] for unit in kept) / sum(unit["width"] for unit in units)
    alt = (
        f"Bars of the channels kept in each of {len(units)} width units; {len(units) - len(kept)} are in "
        f"dropped blocks. {100 * share:.0f} percent of all searched channels are kept."
    )
    return render("Channels kept in each width unit", alt, draw, size=WIDE)


def _draw_depths(stages: Sequence[Mapping]) -> Drawing:
    def draw(axes: Axes) -> None:
        draw_depths(axes, stages, full=FAINT, kept=STUDENT)
        axes.grid(axis="y", visible=False)
        legend_above(axes, handles=[Patch(color=FAINT, label="full"), Patch(color=STUDENT, label="kept")])

    kept = ", ".join(f"{stage['name']} {stage['kept']} of {stage['blocks']}" for stage in stages)
    height = 1.4 + 0.42 * len(stages)
    return render("Blocks kept in each stage", f"Blocks kept: {kept}.", draw, size=(NARROW[0], height))


def _draw_latencies(shapes: Sequence[Prediction], budget: float | None) -> Drawing:
    """Draws predicted and measured latencies of shapes, as shares of the unpruned network's."""
    others, students = ([one for one in shapes if (one.name == STUDENT_NAME) == own] for own in (False, True))

    def draw(axes: Axes) -> None:
        most = 110 * max(max(one.predicted, one.measured) for one in shapes)
        axes.plot([0, most], [0, most], color=FAINT, linewidth=1.5, label="equal")
        for group, colour, marker, label in (
            (others, RIVAL, "o", "shapes considered"),
            (students, STUDENT, "D", "student's file"),
        ):
            if group:
                places = [100 * one.predicted for one in group], [100 * one.measured for one in group]
                axes.plot(*places, marker, color=colour, label=label, linestyle="none")
        if budget is not None:
            axes.axhline(100 * budget, color=INK, linestyle=":", linewidth=1.5, label="budget")
        axes.set_xlabel("predicted, percent of the unpruned network")
        axes.set_ylabel("measured, percent")
        legend_above(axes)

    listed = ", ".join(f"{one.name} {100 * one.predicted:.1f} and {100 * one.measured:.1f}" for one in shapes)
    return render("Latency, predicted and measured", f"Predicted and measured percent: {listed}.", draw, size=NARROW)


def _draw_speedups(speedups: Mapping[str, float], macs_reduction: float | None) -> Drawing:
    def draw(axes: Axes) -> None:
        places = range(len(speedups))
        axes.bar(places, list(speedups.values()), color=STUDENT, width=0.6, label="faster")
        if macs_reduction is not None:
            axes.axhline(macs_reduction, color=INK, linestyle=":", linewidth=1.5, label="fewer multiply-adds")
        axes.set_xticks(places, list(speedups))
        axes.set_ylabel("teacher / student")
        axes.grid(axis="x", visible=False)
        legend_above(axes)

    listed = ", ".join(f"{format} {value:.2f}" for format, value in speedups.items())
    limit = "" if macs_reduction is None else f"; multiply-adds are {macs_reduction:.2f} times fewer"
    return render("Speed-up by format", f"Times faster than the teacher: {listed}{limit}.", draw, size=NARROW)


def _draw_cost_history(history: Mapping[str, Sequence], kind: str, budget: float | None) -> Drawing:
    curves = {
        "expected": (history.get(f"expected_{kind}"), STUDENT, "-"),
        "most probable shape": (history.get(f"argmax_{kind}"), TEACHER, "--"),
    }
    curves = {name: curve for name, curve in curves.items() if curve[0]}
    unit = "milliseconds" if kind == "latency" else f"{KIND_NAMES[kind]}, millions"
    size = 1 if kind == "latency" else 1e6

    def draw(axes: Axes) -> None:
        for name, (values, colour, line) in curves.items():
            axes.plot(
                range(1, len(values) + 1),
                scaled(values, size),
                line,
                color=colour,
                label=name,
                marker=".",
                linewidth=1.8,
            )
        if budget is not None:
            axes.axhline(budget / size, color=INK, linestyle=":", linewidth=1.5, label="budget")
        axes.set_ylabel(unit)
        label_epochs(axes)
        legend_above(axes)

    last = ", ".join(f"{name} {scaled(values, size)[-1]:.4g}" for name, (values, _, _) in curves.items())
    limit = "" if budget is None else f"; the budget is {budget / size:.4g}"
    alt = f"{unit[0].upper()}{unit[1:]}, by epoch of the search. In the last epoch: {last}{limit}."
    return render("Cost during the search", alt, draw, size=NARROW)


def _draw_score_history(values: Sequence[float | None], score: Score) -> Drawing:
    shown = [float("nan") if value is None else score.scaled(value) for value in values]

    def draw(axes: Axes) -> None:
        axes.plot(range(1, len(shown) + 1), shown, "-", color=STUDENT, marker=".", linewidth=1.8)
        axes.set_ylabel(f"held-out {score.axis}")
        label_epochs(axes)

    alt = f"Held-out {score.title} of the decoded shape by epoch; {score.written(values[-1])} in the last epoch."
    title = f"{score.title[0].upper()}{score.title[1:]} during the search"
    return render(title, alt, draw, size=NARROW)


def _draw_race(laps: Sequence[Mapping], winner: str, rate_factor: float) -> Drawing:
    """Draws the loss of each shape by round; tries of other learning rates are left out."""
    losses: dict[str, dict[int, float]] = {}
    for lap in laps:
        if lap["rate_factor"] == rate_factor and lap["loss"] is not None:  # None: training diverged
            losses.setdefault(lap["proposal"], {})[lap["round"]] = lap["loss"]
    rounds = sorted({number for of_one in losses.values() for number in of_one})

    def draw(axes: Axes) -> None:
        for name, of_one in losses.items():
            colour = STUDENT if name == winner else RIVAL
            axes.plot(of_one.keys(), of_one.values(), "-", color=colour, marker=".", linewidth=1.8)
        # Names go beside last points, far enough apart to be read.
        low, high = axes.get_ylim()
        for number in rounds:
            height = low
            for loss, name in sorted((one[number], name) for name, one in losses.items() if max(one) == number):
                height = max(loss, height)
                axes.annotate(name, (number + 0.03, height), va="center", size=8, color=INK)
                height += (high - low) / 22
        axes.set_xlim(0.9, len(rounds) + 0.9)
        axes.set_xlabel("round")
        axes.set_xticks(rounds)
        axes.set_ylabel("held-out loss")

    ends = ", ".join(
        f"{name} {list(of_one.values())[-1]:.3f} in round {max(of_one)}" for name, of_one in losses.items()
    )
    alt = f"Loss on held-out training images by round of the race, which {winner} won. Last: {ends}."
    return render("The race between shapes", alt, draw, size=WIDE)

"""Places of points, ticks and words of plots."""

import math

import pytest

from tas_tf.report.comparison import Figure, Row
from tas_tf.report.plot import RIVAL, STUDENT, TEACHER, Plot, Point, plots_of, plots_of_rows
from tas_tf.report.report import build_report
from tests.report.test_report import PIECES, all_formats


def plot(*points: Point, **options) -> Plot:
    return Plot("key", "title", "x", "y", points, **options)


def test_points_lie_between_the_ticks_of_their_values():
    points = [Point("a", TEACHER, "", 2.0, 90.0), Point("b", STUDENT, "", 1.0, 95.0), Point("c", RIVAL, "", 0.5, 85.0)]
    found = plot(*points)
    for place, value in (("left", "x"), ("bottom", "y")):
        ticks = found.x_ticks if value == "x" else found.y_ticks
        (low, low_text), *_, (high, high_text) = ticks
        assert 3 <= len(ticks) <= 8
        assert 0 <= low < high <= 100
        for one in found.placed:
            # Linear between the first and the last tick.
            share = (getattr(one.point, value) - float(low_text)) / (float(high_text) - float(low_text))
            assert getattr(one, place) == pytest.approx(low + share * (high - low), abs=0.02)
    assert found.x_ticks[0] == (0.0, "0")


@pytest.mark.parametrize("value", [0.0, 98.6, -3.0, 1e-4, 2.5e7])
def test_a_single_point_has_axes_too(value):
    found = plot(Point("a", STUDENT, "", abs(value), value))
    (one,) = found.placed
    assert 0 <= one.left <= 100
    assert 0 < one.bottom < 100
    texts = [text for _, text in found.y_ticks]
    assert len(set(texts)) == len(texts) >= 2


def test_spreads_are_as_long_as_their_values():
    points = Point("a", RIVAL, "", 2.0, 90.0, 0.5, 1.0), Point("b", RIVAL, "", 3.0, 92.0)
    first, second = plot(*points).placed
    assert first.width == pytest.approx((second.left - first.left) * 2 * 0.5, abs=0.05)
    assert first.height == pytest.approx(second.bottom - first.bottom, abs=0.05)
    assert (second.width, second.height) == (0, 0)


def test_shapes_tell_rivals_apart_and_are_the_same_in_all_plots():
    points = [Point(name, RIVAL, "", 1.0, 1.0) for name in "bcdefghi"]
    found = plot(Point("teacher", TEACHER, "", 1.0, 1.0), *points)
    assert found.shapes["teacher"] == 0
    assert [found.shapes[name] for name in "bcdefghi"] == [1, 2, 3, 4, 5, 6, 1, 2]
    assert plot(points[1], names=("b", "c")).legend == [("c", RIVAL, 2)]


def test_a_report_has_a_point_for_each_file_and_for_each_network():
    latency, cost = plots_of(build_report(**all_formats()))
    # `dynamic` of the student has no latency.
    assert latency.groups == ["fp32", "fp16", "dynamic", "int8", "qat_int8"]
    assert len(latency.points) == 9
    assert [(point.name, point.x, point.y) for point in cost.points] == [
        ("teacher", 40.0, 98.0),
        ("student", 16.0, 97.0),
    ]
    assert latency.points[0].text == "teacher, fp32: latency 1.5 ms, accuracy 98.00 %, size 400 kB"
    assert plots_of(build_report()) == []
    assert [one.key for one in plots_of(build_report(teacher=PIECES["teacher"]))] == ["cost-plot"]


def test_rows_of_a_comparison_with_their_teacher():
    def figures(accuracy: float, **more: float) -> dict[str, Figure]:
        return {"accuracy": Figure(accuracy, 0.01, 3), **{name: Figure(value, None, 3) for name, value in more.items()}}

    rows = [
        Row("tas", (0, 1, 2), True, figures(0.9, macs=2e6, latency_ms=1.5), teacher=figures(0.95, latency_ms=3.0)),
        Row("uniform", (0, 1, 2), True, figures(0.88, macs=2e6)),
    ]
    latency, cost = plots_of_rows(rows)
    assert [(point.name, point.role, point.x, point.y) for point in latency.points] == [
        ("tas", RIVAL, 1.5, 90.0),
        ("teacher", TEACHER, 3.0, 95.0),
    ]
    assert latency.points[0].y_spread == pytest.approx(1.0)
    assert latency.points[0].details == (("latency", "1.5 ms"), ("accuracy", "90.00 ± 1.00 %"))
    assert [point.name for point in cost.points] == ["tas", "uniform"]
    assert plots_of_rows([]) == []


def test_each_network_has_one_teacher_point():
    def figures(accuracy: float, latency: float, macs: float = 2e6) -> dict[str, Figure]:
        values = {"accuracy": accuracy, "latency_ms": latency, "macs": macs}
        return {name: Figure(value, None, 1) for name, value in values.items()}

    def teachers(rows: list[Row]) -> list[list[tuple[str, float, float]]]:
        return [
            [(point.name, point.x, point.y) for point in one.points if point.role == TEACHER]
            for one in plots_of_rows(rows)
        ]

    student = figures(0.9, 1.0)
    first = Row("a", (0,), True, student, teacher=figures(0.95, 3.0, 4e6))
    again = Row("b", (0,), True, student, teacher=figures(0.95, 4.0, 4e6))
    other = Row("c", (0,), True, student, teacher=figures(0.98, 9.0, 8e6))
    # Timed twice, with each student.
    assert teachers([first, again]) == [[("teacher", 3.5, 95.0)], [("teacher", 4.0, 95.0)]]
    assert teachers([first, other, again]) == [
        [("teacher of a and 1 more", 3.5, 95.0), ("teacher of c", 9.0, 98.0)],
        [("teacher of a and 1 more", 4.0, 95.0), ("teacher of c", 8.0, 98.0)],
    ]
    # A teacher with a row of its own has a point already.
    own = Row("large", (0,), None, figures(0.98, 9.0, 8e6))
    assert teachers([first, other, own])[1] == [("large", 8.0, 98.0), ("teacher", 4.0, 95.0)]


def test_what_is_not_finite_has_no_point():
    def row(name: str, accuracy: float) -> Row:
        return Row(name, (0,), True, {"accuracy": Figure(accuracy, None, 1), "macs": Figure(2e6, None, 1)})

    (found,) = plots_of_rows([row("a", 0.5), row("b", math.nan), row("c", math.inf)])
    assert [point.name for point in found.points] == ["a"]
    assert len(found.placed) == 1
    assert plots_of_rows([row("b", math.nan)]) == []

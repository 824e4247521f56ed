"""Budgets in time from the first measurement to the shape, on latencies that are computed."""

import json
import re

import numpy as np
import pytest

from tas_tf.cost.budget import Budget
from tas_tf.decode.decode import decode, smallest_shape
from tas_tf.errors import UserError
from tas_tf.latency import table as table_module
from tas_tf.latency.measure import Target, runtime_version
from tas_tf.latency.meter import LatencyMeter, meter_of
from tas_tf.latency.settings import LatencySettings
from tas_tf.latency.table import LatencyTable, cache_folder, cached_table
from tas_tf.searching.run import cost_and_limit
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.file_size import FileSize
from tas_tf.student.meter import find_within, make_cost
from tas_tf.zoo.loading import load_network
from tests.digits import tiny_space


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return SearchSpace.from_model(load_network("resnet14", image_size=8))


_ARRAYS = ("widths", "depths", "ratios")


def equal(one: LatencyTable, other: LatencyTable) -> bool:
    arrays = all(np.array_equal(getattr(one, name), getattr(other, name)) for name in _ARRAYS)
    return arrays and (one.full_ms, one.noise, one.device) == (other.full_ms, other.noise, other.device)


def test_a_table_is_measured_once(space, clock):
    first, new = cached_table(space, Target())
    again, anew = cached_table(space, Target())
    assert (new, anew) == (True, False)
    assert equal(first, again)
    assert len(clock.timed) == table_module.COUNT


@pytest.mark.parametrize(
    "change",
    [
        lambda space, patch: cached_table(space, Target(format="int8")),
        lambda space, patch: cached_table(space, Target(threads=2)),
        lambda space, patch: cached_table(space, Target(preprocessing=lambda: [_Layer()])),
        lambda space, patch: _renamed(space, patch, "runtime_version"),
        lambda space, patch: _renamed(space, patch, "device_name"),
        lambda space, patch: cached_table(tiny_space(), Target()),
        lambda space, patch: cached_table(SearchSpace.from_graph(space.graph, width_divisor=4), Target()),
        lambda space, patch: cached_table(SearchSpace.from_graph(space.graph, couple_trunk=True), Target()),
    ],
    ids=["format", "threads", "preprocessing", "runtime", "processor", "network", "candidates", "coupling"],
)
def test_what_measurements_depend_on(space, clock, monkeypatch, change):
    cached_table(space, Target())
    change(space, monkeypatch)
    assert len(clock.timed) > table_module.COUNT
    assert len(list(cache_folder().glob("*.json"))) == 2


def _renamed(space, patch, function: str) -> None:
    patch.setattr(table_module, function, lambda: "abacus")
    cached_table(space, Target())


class _Layer:
    """Stands for a preprocessing layer."""


def test_an_interrupted_measurement_is_continued(space, clock, monkeypatch):
    whole = LatencyTable.measure(space, Target())
    clock.timed.clear()
    time_shapes, said = table_module.time_shapes, []

    def interrupted(*given, **options):
        for number, timing in enumerate(time_shapes(*given, **options)):
            if number == 14:
                raise KeyboardInterrupt
            yield timing

    with monkeypatch.context() as patch:
        patch.setattr(table_module, "time_shapes", interrupted)
        with pytest.raises(KeyboardInterrupt):
            cached_table(space, Target())
    meter = LatencyMeter(space, Target(), say=said.append)
    assert equal(meter.table, whole)
    assert said[0].startswith("latency: 40 shapes are timed on this machine first, of which 14 have been timed;")
    assert len(clock.timed) == 14 + 1 + 26  # the one after which it stopped was timed for nothing
    assert len(list(cache_folder().iterdir())) == 1


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"KEY": 3}', '{"KEY": [1]}', '{"KEY": [1, 2, 3], "checksum": "x"}']
)
def test_a_damaged_part_of_a_table_is_timed_again(space, tmp_path, clock, content):
    shapes = table_module.shapes_to_measure(space, 5)
    (tmp_path / "begun.json").write_text(content.replace("KEY", table_module.shape_key(shapes[1])))
    assert table_module.BegunTable(tmp_path / "begun.json").timings(shapes) == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 1}', '{"version": 7}'])
def test_a_damaged_table_in_the_cache_is_measured_again(space, clock, content):
    table, _ = cached_table(space, Target())
    (path,) = cache_folder().glob("*.json")
    path.write_text(content)
    again, new = cached_table(space, Target())
    assert new
    assert equal(table, again)
    assert equal(LatencyTable.load(path), table)


def test_the_shape_found_is_within_the_budget_as_measured(space, clock):
    """Shapes take 5 percent longer than the table says: the budget is kept all the same."""
    clock.slower, clock.exact = 1.05, table_module.COUNT
    meter = LatencyMeter(space, Target())
    cost, limit = cost_and_limit(space, Budget.parse("latency:0.6"), meter)
    assert cost.kind == "latency"
    assert limit == pytest.approx(0.6 * clock.cost(space).full, rel=1e-6)
    rng = np.random.default_rng(0)
    widths = rng.dirichlet(np.ones(space.width_choices.longest), len(space.searched_units))
    depths = rng.dirichlet(np.ones(2), len(space.searched_stages))

    def find(at_most: int) -> Shape:
        return decode(cost, widths, depths, limit=at_most, tolerance=at_most // 10)

    shape, spent = find_within(find, cost, limit, meter)
    assert 1.05 * clock.cost(space)(shape) <= spent <= limit
    assert spent == meter(shape)
    assert spent > 0.8 * limit


def test_shapes_are_measured_once_and_reported(space, clock):
    meter = LatencyMeter(space, Target())
    shape = Shape.random(space, 5)
    assert meter(shape) == meter(Shape.random(space, 5))
    assert len(clock.timed) == table_module.COUNT + 1
    figures = meter.figures()
    (timed,) = figures["latency_timed"]
    assert timed["measured"] == pytest.approx(1.01 * clock.cost(space)(shape) / clock.cost(space).full, rel=0.01)
    assert timed["predicted"] == pytest.approx(timed["measured"], rel=0.15)
    assert figures["latency_predicted"] is False
    assert 0 <= figures["latency_error"]["mean"] <= figures["latency_error"]["worst"]
    json.dumps(figures)


def test_budgets_out_of_reach_say_what_can_be_reached(space, clock):
    """The smallest shape is predicted to take half of what it takes."""
    clock.slower, clock.exact = 2.0, table_module.COUNT
    meter = LatencyMeter(space, Target())
    lowest = meter.cost_model()(smallest_shape(meter.cost_model()))
    for budget in ("latency:0.001us", f"latency:{1.1 * lowest / 1e9:.6f}us"):
        with pytest.raises(UserError, match=r"Expected at least latency:[\d.]+us \(.* us.*measured") as error:
            cost_and_limit(space, Budget.parse(budget), meter)
    (least,) = re.findall(r"latency:[\d.]+us", str(error.value))
    assert cost_and_limit(space, Budget.parse(least), meter)[1] >= meter(smallest_shape(meter.cost_model()))
    with pytest.raises(UserError, match="is more than resnet14 costs"):
        cost_and_limit(space, Budget.parse("latency:1s"), meter)


def test_a_busy_machine_is_refused_and_nothing_is_kept(space, clock):
    clock.noise = 0.25
    with pytest.raises(UserError, match=r"a device this busy: measurements of .* differ by 25%"):
        LatencyMeter(space, Target()).cost_model()
    assert not list(cache_folder().glob("*.json"))


def test_a_table_of_another_device(space, clock, tmp_path):
    path = tmp_path / "latency.json"
    LatencyTable.measure(space, Target(threads=4)).save(path)
    timed = len(clock.timed)
    meter = LatencyMeter(space, Target(threads=4), table_from=str(path))
    cost, limit = cost_and_limit(space, Budget.parse("latency:0.5"), meter)
    shape, spent = find_within(lambda at_most: smallest_shape(cost), cost, limit, meter)
    assert cost(shape) <= spent <= limit
    assert len(clock.timed) == timed  # nothing was timed here
    figures = meter.figures()
    assert figures["latency_predicted"] is True
    assert figures["latency_timed"] == []  # what is only predicted isn't shown as measured
    with pytest.raises(UserError, match="at its smallest, predicted"):
        cost_and_limit(space, Budget.parse("latency:0.001us"), meter)
    with pytest.raises(UserError, match=r"fp32 with 4 threads\. Expected: fp32 with 1"):
        LatencyMeter(space, Target(), table_from=str(path)).cost_model()
    with pytest.raises(UserError, match="int8"):
        LatencyMeter(space, Target("int8", 4), table_from=str(path)).cost_model()
    with pytest.raises(UserError, match=r"other shapes, of resnet14\. Expected those of tiny"):
        LatencyMeter(tiny_space(), Target(threads=4), table_from=str(path)).cost_model()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda content: {}, "`version`"),
        (lambda content: {**content, "version": 99}, "`version`"),
        (lambda content: [content], "`version`"),
        (lambda content: {name: content[name] for name in content if name != "ratios"}, "ratios"),
        (lambda content: {**content, "full_ms": "fast"}, "fast"),
        (lambda content: {**content, "full_ms": 0}, "above 0"),
        (lambda content: {**content, "ratios": [-1, *content["ratios"][1:]]}, "above 0"),
        (lambda content: {**content, "ratios": content["ratios"][1:]}, "widths, depths and ratios"),
        (lambda content: {**content, **{name: [] for name in _ARRAYS}}, "0 ratios"),
    ],
)
def test_a_damaged_file_is_told(space, clock, tmp_path, change, match):
    path = tmp_path / "latency.json"
    LatencyTable.measure(space, Target(), count=10).save(path)
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(UserError, match=match):
        LatencyTable.load(path)
    with pytest.raises(UserError, match="Can't read"):
        LatencyTable.load(tmp_path / "missing.json")


def test_the_meter_of_each_kind(space):
    measure = len
    assert meter_of("macs", space, LatencySettings(), measure_file=measure) is None
    assert isinstance(meter_of("bytes", space, LatencySettings(), measure_file=measure), FileSize)
    found = meter_of("latency", space, LatencySettings(file_format="int8", threads=3), measure_file=measure)
    assert (found.target.format, found.target.threads) == ("int8", 3)
    with pytest.raises(UserError, match="latency needs a `meter`"):
        make_cost(space, "latency", meter_of("bytes", space, LatencySettings(), measure_file=measure))


def test_a_resumed_run_finds_what_was_measured(space, clock):
    shape = Shape.random(space, 5)
    measured = LatencyMeter(space, Target())(shape)
    timed = len(clock.timed)
    clock.slower, clock.exact = 1.5, 0  # another measurement would differ
    assert LatencyMeter(space, Target())(shape) == measured
    assert len(clock.timed) == timed
    assert LatencyMeter(space, Target("int8"))(shape) > measured


def test_noisy_measurements_are_made_again(space, clock):
    said = []
    meter = LatencyMeter(space, Target(), say=said.append)
    meter.cost_model()
    assert "differ by 0.1%" in said[-1]
    assert meter.figures()["latency_noise"] == pytest.approx(0.001)
    timed, clock.noise = len(clock.timed), 0.1
    spent = meter(Shape.random(space, 5))
    assert len(clock.timed) == timed + 3
    assert re.search("warning: the device is busy.* differ by 10.0%, even the calmest of 3", said[-1])
    assert spent == pytest.approx(1.05 * 1.01 * clock.cost(space)(Shape.random(space, 5)), rel=1e-6)


def test_a_noisy_device_is_refused(space, clock, tmp_path):
    clock.noise = 0.25
    LatencyTable.measure(space, Target(), count=10).save(tmp_path / "latency.json")
    with pytest.raises(UserError, match=r"a device this busy: measurements of .* differ by 25%"):
        LatencyMeter(space, Target(), table_from=str(tmp_path / "latency.json")).cost_model()


@pytest.mark.parametrize("accelerated", [True, False])
def test_a_runtime_without_fast_kernels_is_told(space, clock, accelerated):
    clock.accelerated, said = accelerated, []
    LatencyMeter(space, Target(), say=said.append).cost_model()
    assert any("without XNNPACK" in text for text in said) is not accelerated
    later = []
    LatencyMeter(space, Target(), say=later.append).cost_model()
    assert any("without XNNPACK" in text for text in later) is not accelerated


@pytest.mark.parametrize(
    ("runtime", "told"),
    [
        ("ai-edge-litert 1.0.0", True),
        ("tflite-runtime 2.14.0, without XNNPACK", True),
        (runtime_version(), False),
        (f"{runtime_version()}, without XNNPACK", False),
        ("benchmark_model", False),
        ("benchmark_model 0123456789ab", False),
        ("benchmark_model 0123456789ab, without XNNPACK", False),
    ],
)
def test_a_table_of_another_runtime_is_told(space, clock, tmp_path, runtime, told):
    path, said = tmp_path / "latency.json", []
    LatencyTable.measure(space, Target(), count=10).save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "runtime": runtime}))
    meter = LatencyMeter(space, Target(), table_from=str(path), say=said.append)
    assert meter.figures()["latency_runtime"] == runtime
    assert any(f"was measured with {runtime}, but {runtime_version()}" in text for text in said) is told


def test_a_small_space_is_measured_as_a_whole(clock):
    space = tiny_space(axes="depth")
    meter = LatencyMeter(space, Target())
    assert len(clock.timed) == 0
    assert meter.cost_model()(Shape.smallest(space)) < meter.cost_model().full
    assert len(clock.timed) == 2
    assert equal(LatencyMeter(space, Target()).table, meter.table)
    assert len(clock.timed) == 2
    json.dumps(meter.figures(), allow_nan=False)


def test_a_poor_table_is_told_and_not_kept(space, clock, monkeypatch):
    rng, cost = np.random.default_rng(0), clock.cost
    monkeypatch.setattr(clock, "cost", lambda space: _Erratic(cost(space), rng))
    said = []
    LatencyMeter(space, Target(), say=said.append).cost_model()
    assert any(text.startswith("warning: that is much") for text in said)
    assert not list(cache_folder().glob("*.json"))


class _Erratic:
    """A cost that nothing predicts."""

    def __init__(self, cost, rng) -> None:
        self.full, self._cost, self._rng = cost.full, cost, rng

    def __call__(self, shape: Shape) -> float:
        return self._cost(shape) * self._rng.uniform(0.5, 2.0)


def test_few_shapes_are_tried(space, clock):
    """Every shape takes a little longer than predicted: the next try is another shape, not the same one again."""
    clock.slower, clock.exact = 1.02, table_module.COUNT
    meter, tried = LatencyMeter(space, Target()), []
    cost, limit = cost_and_limit(space, Budget.parse("latency:0.6"), meter)
    rng = np.random.default_rng(0)
    widths = rng.dirichlet(np.ones(space.width_choices.longest), len(space.searched_units))
    depths = rng.dirichlet(np.ones(2), len(space.searched_stages))

    def find(allowed: int) -> Shape:
        tried.append(decode(cost, widths, depths, limit=allowed, tolerance=allowed // 50))
        return tried[-1]

    find_within(find, cost, limit, meter)
    assert len(tried) <= 6
    assert len({str(shape.widths) + str(shape.depths) for shape in tried}) == len(tried)

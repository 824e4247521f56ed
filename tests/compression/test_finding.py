"""`compress` by a race: its default, its settings, and a time instead of epochs."""

import numpy as np
import pytest

from tas_tf.compression import finding
from tas_tf.compression.compress import compress
from tas_tf.errors import UserError
from tas_tf.importance.order import channel_order, reorder
from tas_tf.recipes import RECIPES
from tas_tf.space.space import SearchSpace
from tas_tf.timing.duration import Deadline
from tas_tf.timing.pace import Pace
from tas_tf.training.network import inherited
from tests.networks import count_macs

pytestmark = pytest.mark.filterwarnings("ignore:The student is near chance level")

RACE = {"proposals": 2, "rate_factors": (0.1, 0.5)}
#: Leaves weights where they start.
STILL = {"epochs": 1, "lr": 1e-7, "l2": 0.0, "batch_size": 32}


@pytest.fixture(scope="module")
def raced(model, arrays):
    weights = [np.array(weight) for weight in model.get_weights()]
    result = compress(model, *arrays, "macs:0.4", race=RACE, training=STILL, verbose=0)
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    return result


@pytest.mark.slow
def test_the_student_is_the_winner_within_the_budget(model, raced):
    assert raced.search is None
    assert raced.shape == raced.race.winner.shape
    assert count_macs(raced.student) == raced.student_metrics["macs"] <= 0.4 * count_macs(model)
    assert [(lap.proposal.name, lap.rate_factor) for lap in raced.race.laps[:2]] == [("uniform", 0.1), ("uniform", 0.5)]
    assert len({lap.proposal.name for lap in raced.race.laps}) >= 2


@pytest.mark.slow
def test_it_goes_on_from_the_race(model, raced):
    for name in ("stem", "block1_conv1", "classifier"):
        kernels = [network.get_layer(name).kernel.numpy() for network in (raced.student, raced.race.network)]
        np.testing.assert_allclose(*kernels, atol=1e-5)
    # Nothing has been learned at this rate, so these are the model's best filters.
    space = SearchSpace.from_model(model)
    start = inherited(reorder(model, space, channel_order("l1", model, space)), space, raced.shape)
    np.testing.assert_allclose(start.get_layer("stem").kernel, raced.student.get_layer("stem").kernel, atol=1e-4)


@pytest.mark.slow
def test_the_recipe_gives_the_defaults(model, arrays, monkeypatch):
    monkeypatch.setitem(RECIPES, "fast", {"student.epochs": 2, "race.proposals": 1})
    result = compress(model, *arrays, recipe="fast", race={"rate_factors": (0.5,)}, verbose=0)
    assert result.race.laps == ()
    assert result.student_metrics["epochs"] == 2
    # The rate before the race, which tries parts of it, is 0.1 for batches of 64.
    assert result.race.rate_factor == 0.5


@pytest.mark.slow
def test_a_time_determines_shapes_and_epochs(model, arrays, monkeypatch, capsys):
    # A machine of that pace, which has taken 40 s so far whenever it is asked.
    monkeypatch.setattr(finding, "measure_pace", lambda *args, **options: Pace(0.1, 1.0, 0.5, epoch_overhead=0.4))
    monkeypatch.setattr(Pace, "after_race", lambda pace, *args, **options: pace)
    monkeypatch.setattr(Deadline, "used", property(lambda deadline: 40.0))
    monkeypatch.setattr("tas_tf.compression.compress.monotonic", lambda: 0.0)
    result = compress(
        model, *arrays, time="60s", race={"rate_factors": (0.1, 0.5)}, training={"batch_size": 32}, verbose=2
    )
    # 20 s are left, one of them to build the network; epochs have 6 steps.
    assert result.student_metrics["epochs"] == 19
    assert len({lap.proposal.name for lap in result.race.laps}) <= 2
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("Plan", "Used"))]
    assert lines[0].startswith("Plan: ")
    assert lines[1:] == ["Used 40 s of 1 min, epochs to train: 19.", "Used 40 s of 1 min."]
    monkeypatch.setattr(finding, "measure_pace", lambda *args, **options: Pace(1.0, 4.0, 1.0))
    with pytest.raises(UserError, match=r"`time` isn't enough\. Expected at least"):
        compress(model, *arrays, time="40s", training={"batch_size": 32}, verbose=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The (width|depth) distributions have not converged")
def test_searched_shapes_take_part(model, arrays):
    race = {"proposals": 2, "searched": 2, "rate_factors": (0.5,)}
    result = compress(model, *arrays, race=race, search={"epochs": 1, "batch_size": 32}, training=STILL, verbose=0)
    names = {lap.proposal.name for lap in result.race.laps}
    assert {"search", "search 2", "uniform"} <= names
    assert result.search.shape in [lap.proposal.shape for lap in result.race.laps]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recipe": "best"}, "`recipe` must be one of fast, balanced, paper"),
        ({"recipe": "paper", "race": {}}, "`race` has no effect with `recipe`=paper"),
        ({"recipe": "fast", "search": {}}, "`search` has no effect with `recipe`=fast"),
        ({"inherit": "supernet"}, "`inherit` must be one of none, teacher, race with `recipe`=balanced"),
        ({"inherit": "race", "search": {}}, "`inherit` must be one of none, teacher, supernet with `recipe`=paper"),
        ({"time": "soon"}, "`time` must be a duration"),
        ({"time": "20m", "search": {}}, "`time` plans a race"),
        ({"time": "20m", "race": {"searched": 2}, "search": {}}, "`time` doesn't plan a differentiable search"),
        ({"time": "20m", "recipe": "fast"}, "`time` decides `recipe`. Leave out one of the two."),
        ({"time": "20m", "race": RACE}, "`time` decides `proposals`"),
        ({"time": "20m", "training": {"epochs": 3}}, "`time` decides `epochs`"),
        ({"race": {"proposals": 0}}, "`proposals` must be at least 1"),
        ({"race": {"shapes": 3}}, "`race` must have settings among .* Received: 'shapes'"),
        ({"race": RACE, "training": {"batch_size": 170}}, "`batch_size` doesn't fit the data. Expected 1 to 158"),
    ],
    ids=str,
)
def test_bad_arguments(model, arrays, options, message):
    with pytest.raises(UserError, match=message):
        compress(model, *arrays, **options)

"""A race: halving by held-out loss, weights that go on, learning rates, and resuming."""

from __future__ import annotations

import dataclasses
import json
import math
import warnings

import keras
import numpy as np
import pytest

from tas_tf.cost.cost_model import CostModel
from tas_tf.data.task import Task
from tas_tf.errors import UserError
from tas_tf.files import read_json, write_json
from tas_tf.proposals.shortlist import Proposal
from tas_tf.proposals.uniform import uniform_shape
from tas_tf.race.lap import Lap, LapRecords
from tas_tf.race.race import _Images, plan_rounds, race_metrics, run_race
from tas_tf.race.settings import RaceSettings, Rounds
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.training.checkpoint import Saving, saved_progress
from tas_tf.training.network import Trainee, inherited, logits_of, train_network
from tas_tf.training.settings import TrainSettings
from tas_tf.training.strategy import make_strategy
from tas_tf.zoo.loading import load_file
from tests.digits import tiny_task

SETTINGS = TrainSettings(epochs=7, warmup_epochs=2, batch_size=32, lr=0.1, seed=1)
RACE = RaceSettings(rate_factors=(0.1, 0.5))


@pytest.fixture(scope="module")
def model(trained_tiny):
    return load_file(trained_tiny)


@pytest.fixture(scope="module")
def proposals(model) -> list[Proposal]:
    space = SearchSpace.from_model(model)
    cost = CostModel(space)
    return [
        Proposal("uniform", uniform_shape(cost, limit=cost.full // 2)),
        Proposal("uniform 1", uniform_shape(cost, limit=cost.full // 2, depths=[1])),
        Proposal("smallest", Shape.smallest(space)),
    ]


@dataclasses.dataclass(frozen=True)
class Later(Task):
    """Data whose first epoch is a later one of the same data."""

    first: int = 0

    def training(self, batch_size):
        dataset, steps = super().training(batch_size)
        return (lambda epoch, step=0: dataset(epoch + self.first, step)), steps


def race(model, proposals, **options):
    space = SearchSpace.from_model(model)
    return run_race(
        proposals,
        tiny_task(),
        space,
        SETTINGS,
        options.pop("settings", RACE),
        model=model,
        teacher=logits_of(model, space),
        strategy=make_strategy("one_device"),
        verbose=0,
        **options,
    )


@pytest.fixture(scope="module")
def finished(model, proposals):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Task, "test", lambda self: pytest.fail("test images were touched"))
        return race(model, proposals)


def chosen(tries):
    """The lap of the highest rate whose loss is at most a tenth above the lowest."""
    lowest = min(lap.loss for lap in tries)
    return [lap for lap in tries if lap.loss <= 1.1 * lowest][-1]


def test_the_better_half_goes_on(finished):
    laps = [dataclasses.replace(lap, proposal=lap.proposal.name) for lap in finished.laps]
    assert [(lap.proposal, lap.rate_factor) for lap in laps[:2]] == [("uniform", 0.1), ("uniform", 0.5)]
    best = chosen(laps[:2])
    assert finished.rate_factor == best.rate_factor
    first = {"uniform": best.loss, **{lap.proposal: lap.loss for lap in laps[2:4]}}
    assert {lap.rate_factor for lap in laps[2:]} == {best.rate_factor}
    assert [lap.round for lap in laps] == [1, 1, 1, 1, 2, 2]
    assert {lap.proposal for lap in laps[4:]} == set(sorted(first, key=first.get)[:2])
    assert finished.winner.name == min(laps[4:], key=lambda lap: lap.loss).proposal


@pytest.mark.slow
def test_laps_are_trainings_one_after_another(model, proposals, finished):
    """The winner's two laps, step by step."""
    space, task = SearchSpace.from_model(model), tiny_task()
    network = inherited(model, space, finished.winner.shape)
    weights, _ = task.halves(0.8)
    # 9 epochs of 6 steps, a quarter of them in two rounds; 20 steps are 4 epochs of 5 steps.
    assert plan_rounds(task, SETTINGS, RACE, 3) == Rounds((3, 2), (20, 20), 2)
    for epoch in (0, 4):
        trained = train_network(
            space,
            finished.winner.shape,
            Later(**{**vars(task), "indices": weights, "first": epoch}),
            dataclasses.replace(SETTINGS, epochs=4, warmup_epochs=0, lr=0.1 * finished.rate_factor),
            strategy=make_strategy("one_device"),
            teacher=logits_of(model, space),
            start=network,
            verbose=0,
        )
        network = trained.model
    for wanted, found in zip(network.get_weights(), finished.network.get_weights(), strict=True):
        np.testing.assert_array_equal(wanted, found)
    images, labels = map(np.concatenate, zip(*task.held_out(0.8, 10_000).as_numpy_iterator(), strict=True))
    lap = [lap for lap in finished.laps if lap.proposal == finished.winner][-1]
    predicted = network.predict(images, verbose=0)
    assert (predicted.argmax(-1) == labels).mean() == pytest.approx(lap.score)
    assert -np.log(predicted[np.arange(len(labels)), labels]).mean() == pytest.approx(lap.loss, rel=1e-4)


@pytest.mark.slow
def test_the_first_proposal_takes_part_in_every_round(model, proposals):
    """Though its widths are the smallest."""
    laps = race(model, [*proposals[::-1]]).laps
    assert {lap.proposal.name for lap in laps if lap.round == 2} > {"smallest"}


def test_a_race_that_ended_inside_a_lap_goes_on_there(model, proposals, tmp_path):
    """Laps done before aren't run again."""
    brief = RaceSettings(rate_factors=(0.5,))
    whole = race(model, proposals[:2], settings=brief)

    class Stop(keras.callbacks.Callback):
        """Interrupts the second lap after two steps."""

        laps = 0

        def on_train_begin(self, logs=None):
            self.laps += 1

        def on_train_batch_begin(self, batch, logs=None):
            if self.laps == 2 and batch == 2:
                raise KeyboardInterrupt

    saving = Saving(tmp_path, 1e-9)
    with pytest.raises(KeyboardInterrupt):
        race(model, proposals[:2], settings=brief, saving=saving, callbacks=[Stop()])
    (unfinished,) = tmp_path.glob("*/progress.json")
    assert saved_progress(unfinished.parent).steps == 2
    steps = []
    watch = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: steps.append(batch))
    resumed = race(model, proposals[:2], settings=brief, saving=saving, callbacks=[watch])
    assert steps[:2] == [2, 3]
    assert len(steps) == 20 - 2
    assert resumed.winner == whole.winner
    assert [lap.loss for lap in resumed.laps] == [lap.loss for lap in whole.laps]
    for wanted, found in zip(whole.network.get_weights(), resumed.network.get_weights(), strict=True):
        np.testing.assert_array_equal(wanted, found)
    assert not list(tmp_path.glob("*/"))  # the checkpoints of finished laps are gone


@pytest.mark.slow
def test_damaged_laps_are_run_again(model, proposals, tmp_path):
    """They come to the same end, and so does the race."""
    brief, saving = RaceSettings(rate_factors=(0.5,)), Saving(tmp_path)
    whole = race(model, proposals[:2], settings=brief, saving=saving)
    records = {path.name: path.read_bytes() for path in tmp_path.glob("round*")}
    first, second = sorted(name for name in records if name.endswith(".json"))
    (tmp_path / first).write_bytes(records[first].replace(b'"loss": ', b'"loss": 1'))
    weights = tmp_path / second.replace(".json", ".npz")
    weights.write_bytes(weights.read_bytes()[:1000])
    kept = []
    with pytest.warns(UserWarning, match="run again") as warned:
        resumed = race(
            *(model, proposals[:2]), settings=brief, saving=saving, on_lap=lambda lap, known: kept.append(known)
        )
    assert kept == [False, False]
    told = [str(warning.message) for warning in warned if "run again" in str(warning.message)]
    assert len(told) == 2
    assert any(f"{first} is damaged. The lap of " in text for text in told)
    assert any(f"Can't read {weights}" in text for text in told)
    assert [lap.loss for lap in resumed.laps] == [lap.loss for lap in whole.laps]
    for wanted, found in zip(whole.network.get_weights(), resumed.network.get_weights(), strict=True):
        np.testing.assert_array_equal(wanted, found)


@pytest.fixture
def lap(proposals) -> Lap:
    return Lap(proposals[0], 1, 0.5, 20, 0.25, "accuracy", 0.75, seconds=1.5)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "[]",
        lambda text: text[: len(text) // 2],
        lambda text: text.replace("0.25", "0.26"),
        lambda text: '{"lap": {"round": 1}, "shape": SHAPE}',
        lambda text: '{"lap": [], "shape": SHAPE}',
        lambda text: (
            '{"lap": {"round": 1, "rate_factor": 1, "steps": 1, "loss": "1", "metric": "mae", "score": 1, '
            '"seconds": 1}, "shape": SHAPE}'
        ),
    ],
)
def test_a_damaged_record_counts_as_none(tmp_path, lap, damage):
    records = LapRecords(Saving(tmp_path))
    records.write(lap, [np.arange(3.0)])
    known, weights = records.read(lap.proposal, 1, 0.5)
    assert known == lap
    np.testing.assert_array_equal(weights, [np.arange(3.0)])
    (path,) = tmp_path.glob("*.json")
    text = damage(path.read_text()).replace("SHAPE", json.dumps(lap.proposal.shape.to_json()))
    path.write_text(text)
    with pytest.warns(UserWarning, match=r"\.json is .* The lap of uniform in round 1 is run again\."):
        assert records.read(lap.proposal, 1, 0.5) is None


def test_laps_of_earlier_versions_are_read(tmp_path, lap):
    records = LapRecords(Saving(tmp_path))
    records.write(lap, [np.arange(3.0)])
    (path,) = tmp_path.glob("*.json")
    record = read_json(path)
    write_json(path, {"lap": record["lap"], "shape": record["shape"]})
    assert records.read(lap.proposal, 1, 0.5)[0] == lap


def test_a_lap_without_a_shape_is_run_again_without_a_word(tmp_path, lap):
    """Early versions wrote such laps."""
    records = LapRecords(Saving(tmp_path))
    records.write(lap, [np.arange(3.0)])
    (path,) = tmp_path.glob("*.json")
    write_json(path, {"lap": read_json(path)["lap"]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert records.read(lap.proposal, 1, 0.5) is None


@pytest.mark.parametrize("keeps_answers", [True, False])
def test_the_teacher_is_asked_before_a_lap_only_if_its_answers_are_kept(keeps_answers):
    calls = []
    _Images(calls.append, None, keeps_answers=keeps_answers).ask()
    assert calls == ([0] if keeps_answers else [])


@pytest.mark.slow
@pytest.mark.parametrize("laps", [1, 3, 5])
def test_an_interrupted_race_ends_where_an_uninterrupted_one_ends(model, proposals, finished, laps, tmp_path):
    done = []

    def stop(lap, kept):
        done.append(lap)
        if len(done) == laps:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        race(model, proposals, saving=Saving(tmp_path), on_lap=stop)
    trained = []
    with pytest.MonkeyPatch.context() as patch:
        train = Trainee.train
        patch.setattr(Trainee, "train", lambda *args, **kwargs: trained.append(1) or train(*args, **kwargs))
        resumed = race(model, proposals, saving=Saving(tmp_path))
    assert len(trained) == len(finished.laps) - laps
    assert resumed.winner == finished.winner

    def without_time(result):
        return [dataclasses.replace(lap, seconds=0, asked=0) for lap in result.laps]

    assert without_time(resumed) == without_time(finished)
    for wanted, found in zip(finished.network.get_weights(), resumed.network.get_weights(), strict=True):
        np.testing.assert_array_equal(wanted, found)


@pytest.mark.slow
def test_one_proposal_only_tries_learning_rates(model, proposals):
    result = race(model, proposals[:1])
    assert [lap.rate_factor for lap in result.laps] == [0.1, 0.5]
    best = chosen(result.laps)
    assert (result.winner, result.rate_factor) == (proposals[0], best.rate_factor)


def test_one_proposal_and_one_rate_is_no_race(model, proposals):
    result = race(model, proposals[:1], settings=RaceSettings(rate_factors=(0.5,)))
    assert (result.laps, result.rate_factor) == ((), 0.5)
    expected = inherited(model, SearchSpace.from_model(model), proposals[0].shape)
    for wanted, found in zip(expected.get_weights(), result.network.get_weights(), strict=True):
        np.testing.assert_array_equal(wanted, found)


@pytest.mark.slow
def test_a_further_shape_joins_the_first_round(model, proposals):
    seen = []

    def combine(ranked):
        seen.append([one.name for one in ranked])
        return proposals[2]

    result = race(model, proposals[:2], settings=RaceSettings(rate_factors=(0.5,)), combine=combine)
    laps = [(lap.proposal.name, lap.round, lap.loss) for lap in result.laps]
    assert [lap[:2] for lap in laps] == [("uniform", 1), ("uniform 1", 1), ("smallest", 1)]
    assert seen == [[name for name, _, _ in sorted(laps[:2], key=lambda lap: lap[2])]]
    assert result.winner.name == min(laps, key=lambda lap: lap[2])[0]


@pytest.mark.slow
def test_a_rate_that_diverges_drops_out(model, proposals, tmp_path):
    settings = RaceSettings(rate_factors=(0.5, 1e12))
    result = race(model, proposals[:1], settings=settings, saving=Saving(tmp_path))
    assert [lap.loss == math.inf for lap in result.laps] == [False, True]
    assert result.rate_factor == 0.5
    again = race(model, proposals[:1], settings=settings, saving=Saving(tmp_path))
    assert again.laps == result.laps
    with pytest.raises(UserError, match=r"diverged at every learning rate.* Lower `lr`"):
        race(model, proposals[:1], settings=RaceSettings(rate_factors=(1e11, 1e12)))
    with pytest.raises(UserError, match=r"diverged at every learning rate.* Lower `lr`"):
        race(model, proposals[:2], settings=RaceSettings(rate_factors=(1e12,)))


def test_lower_rates_are_tried_where_all_diverge(model, proposals):
    result = race(model, proposals[:1], settings=RaceSettings(rate_factors=(300, 1e4)))
    lower = [300 / 4**times for times in range(1, len(result.laps) - 1)]
    assert [lap.rate_factor for lap in result.laps] == [300, 1e4, *lower]
    diverged = [lap.loss == math.inf for lap in result.laps]
    assert diverged[:-2] == [True] * (len(diverged) - 2)
    assert not diverged[-2]
    assert result.rate_factor == min(result.laps, key=lambda lap: lap.loss).rate_factor


def test_rounds_take_equal_shares_of_the_effort():
    settings = RaceSettings(race_effort=0.2, rate_factors=(1.0,))
    rounds = Rounds.plan(settings, proposals=8, student_steps=12_000)
    assert rounds.entries == (8, 4, 2)
    assert [count * steps for count, steps in zip(rounds.entries, rounds.steps, strict=True)] == [800, 800, 800]
    assert rounds.num_steps == 2400 + 100  # a further shape in the first round
    tried = Rounds.plan(RaceSettings(race_effort=0.2), proposals=8, student_steps=12_000)
    assert (tried.num_laps, tried.num_steps) == (rounds.num_laps + 1, rounds.num_steps + 100)
    short = Rounds.plan(settings, proposals=8, student_steps=100)
    assert short.steps == (20, 20, 20)


def test_metrics(model, finished, proposals):
    cost = CostModel(SearchSpace.from_model(model))
    spent = cost(finished.winner.shape)
    metrics = race_metrics(finished, cost, cost.full // 2, spent)
    assert (metrics["shape_macs"], metrics["budget_macs"]) == (spent, cost.full // 2)
    assert metrics["proposals"]["smallest"] == {"macs": cost(proposals[2].shape), "depths": [1]}
    assert [lap["loss"] for lap in metrics["laps"]] == [lap.loss for lap in finished.laps]
    last = [lap for lap in finished.laps if lap.proposal == finished.winner][-1]
    assert metrics["held_out_accuracy"] == last.score
    assert metrics["laps"][0]["proposal"] == "uniform"
    measured = race_metrics(finished, cost, cost.full // 2, spent, lambda shape: cost(shape) + 1)["proposals"]
    assert {name: one["measured"] for name, one in measured.items()} == {
        name: one["macs"] + 1 for name, one in metrics["proposals"].items()
    }

"""The step that finds a shape by a race between proposals, from the weights of the trained network."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence

import keras

from tas_tf import workers
from tas_tf.cost.cost_model import CostModel
from tas_tf.files import write_json, write_model
from tas_tf.pipeline.memory import expected_shape, search_memory, training_memory
from tas_tf.pipeline.searched_shapes import SearchedShapeStep, search_effort
from tas_tf.pipeline.steps import (
    DISTILLATION,
    Effort,
    RunStep,
    budget_inputs,
    budget_settings,
    data_inputs,
    merged,
    settings_of,
    student_share,
)
from tas_tf.pipeline.training import TEACHER_PASS
from tas_tf.proposals.drawn import drawn_proposals
from tas_tf.proposals.shortlist import Proposal
from tas_tf.race.contest import find_by_race, num_proposals
from tas_tf.race.lap import Lap
from tas_tf.race.logs import RaceSummaries
from tas_tf.race.race import plan_rounds, race_metrics, shares_answers
from tas_tf.runs.run import Step
from tas_tf.runs.schedule import Schedule
from tas_tf.searching.logs import SearchSummaries
from tas_tf.searching.run import run_search
from tas_tf.settings import recorded
from tas_tf.space.space import SearchSpace
from tas_tf.student.meter import real_cost
from tas_tf.timing.plan import BEFORE_RACE
from tas_tf.training.memory import StepMemory
from tas_tf.training.network import logits_of


class RaceStep(SearchedShapeStep):
    """Lets several shapes within the budget compete and keeps the winner, with its weights."""

    kind, section, trains = "race", "race", True

    @property
    def record(self) -> Step:
        """Record of the race, which depends on teacher, data, budget, and on how students are trained.

        Raises:
            UserError: There is no teacher yet.
        """
        workspace, config = self.workspace, self.workspace.config
        searching = ["search"] if config.race.searched else []
        training = recorded(config.student, without=("views",) if config.kd else DISTILLATION)
        return config.run.step(
            "search",
            settings=merged(
                settings_of(workspace, "data", "space", "ranking", "race", *searching, names=["kd"]),
                {"student": training},
                budget_settings(workspace),
            ),
            inputs={"teacher": workspace.require_teacher(), **budget_inputs(workspace), **data_inputs(workspace)},
            outputs=[config.run.search_shape, config.run.raced_student, config.run.metrics("search")],
            version=self.version,
        )

    @property
    def parts(self) -> Sequence[RunStep]:
        """The differentiable search before the race, if its shapes take part."""
        return [SearchOfRace(self)] if self.workspace.config.race.searched else []

    def effort(self, space: SearchSpace) -> Effort:
        """All laps of the race; fewer if there are fewer different shapes than asked for."""
        config = self.workspace.config
        task = self.workspace.task
        proposals = num_proposals(config.race, config.race.searched)
        rounds = plan_rounds(task, config.student, config.race, proposals)
        asked = sum(rounds.steps) if shares_answers(task, config.student, rounds) else rounds.num_steps
        share = student_share(self.workspace, space) + config.kd * TEACHER_PASS * asked / max(1, rounds.num_steps)
        return Effort(rounds.num_laps, rounds.num_steps, share, BEFORE_RACE + rounds.num_shapes)

    def memory(self, space: SearchSpace) -> StepMemory:
        """That of a network of about the student's size."""
        workspace, config = self.workspace, self.workspace.config
        return training_memory(workspace, space, expected_shape(workspace, space), config.student, taught=config.kd)

    def scheduled(self, schedule: Schedule) -> float:
        """Seconds for the race."""
        return schedule.race_seconds

    def work(self, record: Step) -> None:
        """Runs the race, and writes the winner's shape, its network and all laps.

        Raises:
            UserError: The network can't be exported, the budget can't be reached, the batch size doesn't fit, a result
                from other settings exists, or training diverges.
        """
        workspace, config = self.workspace, self.workspace.config
        teacher = workspace.load_teacher()
        space = workspace.checked_space(teacher, anew=True)
        cost, limit = workspace.cost_and_limit(space)
        workspace.task.weights_part(config.race.race_share).training(config.student.batch_size)
        model = workspace.ranked(teacher, space)
        self.begin(record)
        found, notes = self._searched(record, model, cost, limit) if config.race.searched else ((), ())
        with workspace.strategy.scope():
            taught_by = logits_of(teacher, space) if config.kd else None
        with contextlib.closing(RaceSummaries(config.run.logs("search"), cost)) as write:

            def on_lap(lap: Lap, kept: bool) -> None:
                workspace.note_time()
                if workers.is_chief():
                    write(lap, kept)

            result = find_by_race(
                *(cost, limit, workspace.task, config.student, config.race),
                model=model,
                found=found,
                proposing=workspace.proposing(space),
                say=workspace.say,
                teacher=taught_by,
                strategy=workspace.strategy,
                saving=workspace.saving(record),
                verbose=0 if workspace.verbose == "auto" else workspace.verbose,
                on_lap=on_lap,
            )
        shape = result.winner.shape
        meter = workspace.meter(space)
        measure = functools.partial(real_cost, cost, meter=meter)
        measures = meter is not None and meter.measures
        metrics = race_metrics(result, cost, limit, measure(shape), measure if measures else None)
        write_json(config.run.search_shape, shape.to_json())
        write_model(config.run.raced_student, result.network)
        write_json(
            config.run.metrics("search"),
            {**metrics, **self.measured(space), "warnings": [*notes], "seed": config.student.seed},
        )
        record.finish()
        self.show()

    def _searched(
        self, record: Step, model: keras.Model, cost: CostModel, limit: int
    ) -> tuple[list[Proposal], tuple[str, ...]]:
        """Searches differentiably, and lists the shape found and further draws, with the warnings of the search."""
        workspace, config = self.workspace, self.workspace.config
        meter, logs = workspace.meter(cost.space), config.run.logs("search")
        result = run_search(
            cost.space,
            workspace.task,
            config.budget,
            config.search,
            strategy=workspace.strategy,
            teacher=model,
            callbacks=lambda monitor: workspace.callbacks("search", SearchSummaries(logs, monitor)),
            saving=workspace.saving(record).within("search"),
            verbose=workspace.verbose,
            meter=meter,
        )
        options = {"limit": limit, "count": config.race.searched, "meter": meter, "seed": config.search.seed}
        drawn = workers.once(lambda: drawn_proposals(cost, result.shape, result.probabilities, **options))
        return drawn, tuple(result.warnings)


class SearchOfRace(RunStep):
    """The differentiable search before a race, in a row of its own in a plan. The race runs and records it.

    Args:
        race: The race.
    """

    section, trains = "search", True

    def __init__(self, race: RaceStep) -> None:
        super().__init__(race.workspace, f"search of {race.label}")
        self._race = race

    @property
    def record(self) -> Step:
        """Record of the race."""
        return self._race.record

    def effort(self, space: SearchSpace) -> Effort:
        """That of a search without a race."""
        return search_effort(self.workspace)

    def memory(self, space: SearchSpace) -> StepMemory:
        """That of the supernet."""
        return search_memory(self.workspace, space, self.workspace.config.search)

    def work(self, record: Step) -> None:
        """Runs the race, which begins with the search."""
        self._race.work(record)

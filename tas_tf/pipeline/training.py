"""The steps that train ordinary networks: the teacher, the student and its rivals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras

from tas_tf import workers
from tas_tf.baselines.rivals import RIVALS
from tas_tf.errors import UserError
from tas_tf.files import write_json, write_model
from tas_tf.graph.image_size import takes_any_size, with_sizes_of
from tas_tf.pipeline.baseline_shapes import RivalShapeStep
from tas_tf.pipeline.memory import expected_shape, training_memory
from tas_tf.pipeline.steps import (
    DISTILLATION,
    VERSION,
    Effort,
    RunStep,
    data_inputs,
    merged,
    network_settings,
    settings_of,
    student_share,
)
from tas_tf.runs.found_preprocessing import REMEDY
from tas_tf.runs.initial_weights import find_initial_weights, load_initial_network, raced_rate_factor
from tas_tf.runs.run import Step
from tas_tf.runs.schedule import Schedule, load_schedule, save_schedule
from tas_tf.runs.workspace import Workspace
from tas_tf.settings import recorded
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.timing.duration import format_duration
from tas_tf.training.answers import kept_views
from tas_tf.training.class_order import answers, check_order
from tas_tf.training.evaluation import evaluate
from tas_tf.training.memory import StepMemory
from tas_tf.training.network import check_above_chance, logits_of, network_metrics, train_network
from tas_tf.training.settings import TrainSettings

#: Time of the teacher's forward pass in each step of its student, in training steps of the unpruned network.
TEACHER_PASS = 0.35


class TeacherStep(RunStep):
    """Trains the unpruned network, or takes over a trained one."""

    kind, section, trains = "teacher", "teacher", True

    @property
    def does(self) -> str:
        """What a plan says if the step would run."""
        return "is taken over" if self.workspace.config.takes_over else "runs"

    @property
    def record(self) -> Step:
        """Record of the teacher, which depends on the network, the data and, unless taken over, on its training."""
        config = self.workspace.config
        file = config.model_file
        training = {} if config.takes_over else {"teacher": recorded(config.teacher, without=DISTILLATION)}
        further = {"network": {"train_model": True}} if config.network.train_model else {}
        return config.run.step(
            "teacher",
            settings=merged(settings_of(self.workspace, "data"), training, network_settings(self.workspace), further),
            inputs={**({"model": file} if file else {}), **data_inputs(self.workspace)},
            outputs=[config.run.teacher_model, config.run.metrics("teacher")],
            version=VERSION,
        )

    def effort(self, space: SearchSpace) -> Effort:
        """A plain training; no epochs if the network is taken over."""
        settings = self.workspace.config.teacher
        if self.workspace.config.takes_over:
            return Effort(0, 0, 1.0, starts=0.0)
        _, per_epoch = self.workspace.task.training(settings.batch_size)
        return Effort(settings.all_epochs, settings.all_epochs * per_epoch, 1.0)

    def memory(self, space: SearchSpace) -> StepMemory | None:
        """That of the unpruned network; nothing is trained if it is taken over."""
        config = self.workspace.config
        if config.takes_over:
            return None
        return training_memory(self.workspace, space, Shape.full(space), config.teacher, taught=False)

    def scheduled(self, schedule: Schedule) -> float:
        """Seconds for the teacher."""
        return schedule.teacher_seconds

    def work(self, record: Step) -> None:
        """Trains the network, or scores the one taken over, and writes it.

        Raises:
            UserError: The network can't be exported, doesn't fit the data or their order of classes, or is near chance;
                or training diverges.
        """
        workspace, config = self.workspace, self.workspace.config
        model = workspace.network
        space = workspace.checked_space(model, trains=not config.takes_over)
        if config.takes_over:
            workers.once(lambda: _check_order(model, space, workspace))
            metrics = {**workers.once(lambda: _test(model, space, workspace)), "taken_from": str(config.model_file)}
            try:
                check_above_chance(metrics, workspace.task)
            except UserError as error:
                raise UserError(f"{error} If it isn't trained yet, give `train_model`.") from error
            self.begin(record)
            objective = workspace.task.objective
            prepared = "" if data_inputs(workspace) else f" with `preprocess`={config.data.preprocess}"
            scores = objective.told(metrics[objective.metric])
            workspace.say(f"Taken over from {config.model_file}: test {scores}{prepared}.")
        else:
            self.begin(record)
            result = train_network(
                space,
                Shape.full(space),
                workspace.task,
                config.teacher,
                strategy=workspace.strategy,
                start=logits_of(model, space) if config.model_file else None,
                callbacks=workspace.callbacks("teacher"),
                saving=workspace.saving(record),
                verbose=workspace.verbose,
            )
            model, metrics = result.model, result.metrics
            check_above_chance(metrics, workspace.task)
        losses = workspace.losses
        if any(each is not None for each in losses.values()):
            # Later commands find the losses in the file. Without momentum, the optimizer has no state to load.
            model.compile("sgd", **losses)
        write_model(config.run.teacher_model, model)
        write_json(
            config.run.metrics("teacher"),
            {
                **metrics,
                **({"inputs": list(workspace.task.inputs)} if workspace.task.inputs else {}),
                # What a Python file does to images isn't known.
                "preprocess": None if data_inputs(workspace) else config.data.preprocess,
                "resize": config.data.resize,
            },
        )
        record.finish()


class StudentStep(RunStep):
    """Trains the student, a network of the shape found."""

    kind, section, trains = "student", "student", True

    @property
    def record(self) -> Step:
        """Record of the student, which depends on its shape, teacher, data, training and initial weights."""
        workspace, config = self.workspace, self.workspace.config
        source, file = find_initial_weights(config)
        training = {"student": recorded(self._settings, without=() if config.kd else DISTILLATION)}
        ranking = {"ranking": recorded(config.ranking)} if source == "teacher" else {}
        return config.run.step(
            "student",
            settings={**settings_of(workspace, "data", names=["kd"]), **training, **ranking, "start": source},
            inputs={
                "teacher": workspace.require_teacher(),
                "shape": workspace.require_shape(),
                **({} if file is None else {"weights": file}),
                **data_inputs(workspace),
            },
            outputs=[config.run.student_model, config.run.metrics("student")],
            version=VERSION,
        )

    @property
    def _settings(self) -> TrainSettings:
        """Settings of the training, with the rate that did best in the race and the epochs that time allows."""
        config = self.workspace.config
        schedule = load_schedule(config)
        final = schedule.final_epochs if schedule else {}
        epochs = final.get(str(config.budget), config.student.epochs)
        return replace(config.student, lr=config.student.lr * raced_rate_factor(config), epochs=epochs)

    def run(self) -> bool:
        """Decides for how many epochs there is time, if the user gave one; trains unless that has been done."""
        config = self.workspace.config
        schedule = load_schedule(config)
        if schedule is not None and str(config.budget) not in schedule.final_epochs:
            self.workspace.note_time()
            schedule = load_schedule(config).decided(config, self.workspace.task)
            save_schedule(config, schedule)
            epochs = schedule.final_epochs[str(config.budget)]
            left = format_duration(schedule.seconds - schedule.used)
            self.workspace.say(f"{left} of {schedule.time} left, epochs to train: {epochs}.")
        return super().run()

    def effort(self, space: SearchSpace) -> Effort:
        """A training whose cost follows that of the network, plus the teacher's forward pass."""
        settings, epochs = self.workspace.config.student, self.workspace.config.student.all_epochs
        _, per_epoch = self.workspace.task.training(settings.batch_size)
        views = kept_views(self.workspace.task, settings)
        taught = self.workspace.config.kd * TEACHER_PASS * min(epochs, views or epochs) / epochs
        return Effort(epochs, epochs * per_epoch, self._share(space) + taught)

    def memory(self, space: SearchSpace) -> StepMemory:
        """That of a network of about the student's size, and of the teacher."""
        config = self.workspace.config
        return training_memory(self.workspace, space, self._like(space), config.student, taught=config.kd)

    def scheduled(self, schedule: Schedule) -> float:
        """Seconds for one of all students."""
        return schedule.student_seconds / schedule.students

    @property
    def uses_budget(self) -> bool:
        """Whether the estimated time depends on the budget: if no shape is given."""
        return not self.workspace.config.shape

    def _share(self, space: SearchSpace) -> float:
        return student_share(self.workspace, space)

    def _like(self, space: SearchSpace) -> Shape:
        return expected_shape(self.workspace, space)

    def work(self, record: Step) -> None:
        """Trains the student and writes it.

        Raises:
            UserError: Teacher, shape or initial weights are missing or don't fit each other or the data; a student from
                other settings exists; or training diverges.
        """
        workspace, config = self.workspace, self.workspace.config
        teacher = workspace.load_teacher()
        space = workspace.checked_space(teacher)
        shape = workspace.load_shape(space)
        start = load_initial_network(workspace, teacher, space, shape)
        settings = workers.once(lambda: self._settings)
        self.begin(record)
        with workspace.strategy.scope():
            taught_by = logits_of(teacher, space) if config.kd else None
        result = train_network(
            space,
            shape,
            workspace.task,
            settings,
            strategy=workspace.strategy,
            teacher=taught_by,
            start=start,
            callbacks=workspace.callbacks("student"),
            saving=workspace.saving(record),
            verbose=workspace.verbose,
        )
        write_model(config.run.student_model, result.model)
        original = workspace.original
        if original is not None and takes_any_size(original):
            write_model(config.run.student_any_size, with_sizes_of(result.model, original))
        metrics = {**result.metrics, "lr": settings.lr, "shape": config.shape}
        write_json(config.run.metrics("student"), metrics)
        record.finish()


class RivalStep(StudentStep):
    """Trains a rival in the same way as the student; first makes its shape, unless it uses the shape found.

    Args:
        workspace: The run whose student the rival is compared with.
        name: Name of the rival, one of `RIVALS`.
        label: Name of the step for the user.
    """

    def __init__(self, workspace: Workspace, name: str, label: str | None = None) -> None:
        super().__init__(workspace.rival(name), label or f"rival {name}")
        self.rival, self._compared_with = RIVALS[name], workspace
        self._shape_step = None
        if self.rival.shape != "searched":
            self._shape_step = RivalShapeStep(workspace, self.workspace, self.rival.shape, f"shapes of {self.label}")

    @property
    def parts(self) -> Sequence[RunStep]:
        """The step that makes the shape, if it trains."""
        return [self._shape_step] if self._shape_step is not None and self._shape_step.trains else []

    def run(self) -> bool:
        """Runs what isn't up to date; returns whether the rival was trained."""
        if self._shape_step is not None:
            self._shape_step.run()
        return super().run()

    def _share(self, space: SearchSpace) -> float:
        if self.rival.shape == "full":
            return 1.0
        return student_share(self._compared_with, space)

    def _like(self, space: SearchSpace) -> Shape:
        return Shape.full(space) if self.rival.shape == "full" else expected_shape(self._compared_with, space)


def _check_order(model: keras.Model, space: SearchSpace, workspace: Workspace) -> None:
    """Checks the order of classes, unless that was done when the preprocessing was found."""
    config, task = workspace.config, workspace.task
    if (config.network, config.data) not in workspace.shared.in_order:
        check_order(answers(logits_of(model, space), task), task.class_names, argument="dataset", remedy=REMEDY)


def _test(model: keras.Model, space: SearchSpace, workspace: Workspace) -> dict[str, Any]:
    objective = workspace.task.objective
    scores = evaluate(logits_of(model, space), workspace.task.test(), objective)
    return network_metrics(space, Shape.full(space), scores, workspace.task)

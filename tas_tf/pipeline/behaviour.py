"""The step that compares teacher and student on the test images, and what reports read of it."""

from __future__ import annotations

from pathlib import Path

from tas_tf import workers
from tas_tf.behaviour.behaviour import EXAMPLES, METRICS_FILE, Behaviour, has_exclusive_classes
from tas_tf.behaviour.compare import compare_behaviour
from tas_tf.errors import UserError
from tas_tf.pipeline.exporting import SCORED_DATA
from tas_tf.pipeline.steps import VERSION, RunStep, data_inputs, settings_of
from tas_tf.runs.config import RunConfig
from tas_tf.runs.records import is_made_from, read_result
from tas_tf.runs.run import Run, Step
from tas_tf.settings import recorded


class BehaviourStep(RunStep):
    """Compares the answers of teacher and student, of networks with one output of exclusive classes."""

    kind = "behaviour"

    @property
    def applies(self) -> bool:
        """Whether both networks are there, and their outputs are exclusive classes."""
        config = self.workspace.config
        metrics = config.run.metrics("student")
        there = (config.teacher_run.teacher_model, config.run.student_model, metrics)
        return all(path.exists() for path in there) and has_exclusive_classes(read_result(metrics))

    @property
    def record(self) -> Step:
        """Record of the comparison, which depends on both networks and on the test images."""
        config, folder = self.workspace.config, _folder(self.workspace.config.run)
        data = {name: value for name, value in recorded(config.data).items() if name in SCORED_DATA}
        return config.run.step(
            "behaviour",
            settings=settings_of(self.workspace, data=data),
            inputs={
                "teacher": self.workspace.require_teacher(),
                "student": config.run.student_model,
                **data_inputs(self.workspace),
            },
            outputs=[folder / METRICS_FILE, folder / EXAMPLES],
            version=VERSION,
        )

    def run(self) -> bool:
        """Compares the networks if that applies and hasn't been done; returns whether it ran."""
        return workers.once(lambda: self.applies) and super().run()

    def run_if_possible(self) -> None:
        """Does the same, and says so if the data isn't there any more, since reports do without."""
        try:
            self.run()
        except UserError as error:
            reason = self.workspace.shared.wording(str(error), "data")
            self.workspace.say(f"The answers of teacher and student can't be compared. {reason}", markup=False)

    def work(self, record: Step) -> None:
        """Runs both networks on the test images and writes what they answer.

        Raises:
            UserError: The data can't be read.
        """
        workspace = self.workspace
        paths = workspace.require_teacher(), workspace.config.run.student_model
        workspace.say(f"comparing the answers of teacher and student on {workspace.task.num_test:,} test images")
        with record.replacing() as folder:
            compare_behaviour(*map(workspace.load, paths), workspace.task).write(folder)


def read_behaviour(config: RunConfig) -> Behaviour | None:
    """The comparison of a run's present teacher and its present student; `None` if there is none.

    Args:
        config: The run.

    Raises:
        UserError: The comparison was damaged or changed.
    """
    folder = _folder(config.run)
    path = folder / METRICS_FILE
    made_from = {"teacher": config.teacher_run.teacher_model, "student": config.run.student_model}
    if not path.exists() or not all(is_made_from(folder, name, network) for name, network in made_from.items()):
        return None
    content = read_result(path)
    files = [folder / one["file"] for one in content["mistakes"] if one["file"] is not None]
    return Behaviour.from_json(content, [file.read_bytes() for file in files] if all(map(Path.exists, files)) else ())


def _folder(run: Run) -> Path:
    return run.path / BehaviourStep.kind

"""The step that writes, checks and times the files to deploy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from tas_tf import workers
from tas_tf.deploy.arrays import as_inputs
from tas_tf.deploy.artefacts import export_models, files_of, paths_of_export
from tas_tf.deploy.file_contents import file_metadata, layers_inside
from tas_tf.deploy.jobs import Extras
from tas_tf.deploy.settings import INTEGER_FORMATS
from tas_tf.errors import UserError, speaking_of
from tas_tf.pipeline.device_check import write_device_check
from tas_tf.pipeline.kept_latency import check_latency, checks_latency, is_undecided
from tas_tf.pipeline.quantising import QAT_FORMAT, QatStep, qat_steps, run_qat, settle_formats
from tas_tf.pipeline.steps import VERSION, RunStep, check_same_data, data_inputs, settings_of
from tas_tf.qat.saving import load_quantised
from tas_tf.quiet import without_notes
from tas_tf.runs.records import amending
from tas_tf.runs.run import Step
from tas_tf.runs.workspace import Workspace
from tas_tf.settings import recorded
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import build_student

# Test images of streamed data to score files on, and their size as floats.
_STREAMED_TEST_LIMIT, _STREAMED_TEST_BYTES = 5_000, 2**32
_EXPORT_VERSION = VERSION + 1  # latencies are now those of the second of two calls
#: Settings of the data that files depend on: training images determine preprocessing, test images the scores.
SCORED_DATA = (
    *("dataset", "features", "label_columns", "image_size", "resize", "skip_broken", "test_share"),
    *("train_limit", "preprocess", "test_resize", "seed"),
)


class ExportStep(RunStep):
    """Exports the student, the teacher and rivals.

    Args:
        workspace: The run.
        rivals: Rivals to export and time beside the student; by default all that have been trained.
        label: Name of the step for the user.
    """

    kind, section = "export", "export"

    def __init__(self, workspace: Workspace, rivals: Sequence[str] | None = None, label: str | None = None) -> None:
        super().__init__(workspace, label)
        self._rivals = rivals
        self._formats: list[str] = []  # that can be written, once the step runs

    @property
    def parts(self) -> Sequence[QatStep]:
        """The steps that fine-tune networks for 8 bits, if a format needs them."""
        if QAT_FORMAT not in self.workspace.config.export.formats:
            return ()
        steps = qat_steps(self.workspace, list(self._others()))
        for step in steps:
            step.label += self.label.removeprefix(self.kind)
        # All budgets share the teacher's.
        return [step for step in steps if step.name != "teacher" or self.workspace.config.parent is None]

    def _others(self) -> dict[str, Path]:
        return self.workspace.rival_students(self._rivals)

    @property
    def record(self) -> Step:
        """Record of the export, which depends on its networks, on their shapes, which files carry, and on the data."""
        workspace, config = self.workspace, self.workspace.config
        others, run = self._others(), config.run
        formats = self._formats or list(dict.fromkeys(config.export.formats))
        quantised = {}
        if QAT_FORMAT in formats:
            quantised = {step.name: step.folder for step in qat_steps(workspace, list(others))}
        calibrated = bool(set(formats) & set(INTEGER_FORMATS))
        export = recorded(config.export, without=() if calibrated else ["calibration_images"])
        return run.step(
            "export",
            settings=settings_of(
                workspace,
                export={**export, "formats": formats},
                data={name: value for name, value in recorded(config.data).items() if name in SCORED_DATA},
                **({"budget": str(config.budget)} if checks_latency(workspace) else {}),
            ),
            inputs={
                **{"teacher": workspace.require_teacher(), "student": run.student_model, **others},
                **{f"qat_{name}": folder for name, folder in quantised.items()},
                **{f"shape of {name}": path for name, path in self._shape_files(others).items()},
                **data_inputs(workspace),
            },
            outputs=[
                run.export_dir / "metrics.json",
                *(
                    path
                    for model in ("student", "teacher", *others)
                    for format in formats
                    for path in files_of(run.export_dir, format, model=model, c_array=config.export.c_array)
                ),
                *([run.latency_json] if checks_latency(workspace) else []),
            ],
            version=_EXPORT_VERSION,
        )

    def run(self) -> bool:
        """Exports unless the export is up to date; returns whether it ran.

        Raises:
            UserError: There is no student, an argument is invalid, or a file's outputs differ from the student's.
        """
        student, others = self.workspace.config.run.student_model, list(self._others())
        if not student.exists():
            raise UserError(f"`run_dir`: there is no student, {student}. Run `distill` first.")
        with speaking_of(self.section):
            check_same_data(self.workspace)
            with without_notes():
                self._formats = workers.once(lambda: settle_formats(self.workspace, others))
            if QAT_FORMAT in self._formats:
                run_qat(self.workspace, others)
        ran = super().run()
        write_device_check(self.workspace)  # outside the record, since it holds what comes back from the device
        return ran

    def _run(self, record: Step) -> bool:
        if super()._run(record):
            return True
        if not is_undecided(self.workspace):
            return False
        record.run.prepare()  # another process may work on it
        with without_notes(), amending(self.workspace.config.run.latency_json) as folder:
            check_latency(self.workspace, self._formats, record.folder, folder)
        return True

    def work(self, record: Step) -> None:
        """Writes the files and their measurements.

        Raises:
            UserError: An argument is invalid, or a file's outputs differ from the student's.
        """
        workspace, config = self.workspace, self.workspace.config
        others, formats = self._others(), self._formats
        inside = config.export.preprocessing_inside
        images, labels = workspace.task.test_arrays(self._test_limit(), raw=inside)
        files = {"student": config.run.student_model, "teacher": workspace.require_teacher(), **others}
        models = {name: workspace.load(path) for name, path in files.items()}
        if not inside:
            images = as_inputs(models["teacher"], images)
        extras = self._extras(models)
        earlier = [*paths_of_export(record.folder, models), config.run.latency_json]
        with without_notes(), record.replacing(earlier) as folder:
            export_models(
                models,
                folder,
                images=images,
                labels=labels,
                objective=workspace.task.objective,
                formats=formats,
                c_array=config.export.c_array,
                preprocessing_layers=layers_inside(workspace.task, inside=inside),
                extras=extras,
                checks=config.export.checks,
                progress=None if config.progress == "none" else lambda line: workspace.say(f"export: {line}"),
            )
            check_latency(workspace, formats, folder, folder)
        workspace.keep_settings(record)

    def _extras(self, models: Mapping[str, keras.Model]) -> Extras:
        """Everything that the formats need besides the models."""
        workspace, config = self.workspace, self.workspace.config
        task, inside = workspace.task, config.export.preprocessing_inside
        calibration, quantised = None, {}
        if set(self._formats) & set(INTEGER_FORMATS):
            calibration = task.train_images(config.export.calibration_images, raw=inside)
            calibration = calibration if inside else as_inputs(models["teacher"], calibration)
        if QAT_FORMAT in self._formats:
            quantised = {
                step.name: load_quantised(step.folder, models[step.name].input_shape[1:])
                for step in qat_steps(workspace, list(self._others()))
            }
        space = workspace.space_of(models["teacher"])
        shapes = self._shape_files(self._others())
        found = {name: _shape(space, path, models[name]) for name, path in shapes.items()}
        found["teacher"] = Shape.full(space).to_json()
        return Extras(
            calibration=calibration,
            quantised=quantised,
            metadata={
                name: file_metadata(model, task, found.get(name), inside=inside) for name, model in models.items()
            },
        )

    def _shape_files(self, others: Mapping[str, Path]) -> dict[str, Path]:
        """Paths of the shapes of student and rivals, as far as they still exist."""
        config = self.workspace.config
        paths = {"student": config.shape_path, **{name: config.rival(name).shape_path for name in others}}
        return {name: path for name, path in paths.items() if path.exists()}

    def _test_limit(self) -> int | None:
        """Number of test images to use; limited by default for streamed data, which may not fit in memory."""
        limit, task = self.workspace.config.export.test_limit, self.workspace.task
        if limit or not task.is_streamed:
            return limit
        limit = max(1, min(_STREAMED_TEST_LIMIT, _STREAMED_TEST_BYTES // (4 * math.prod(task.image_shape))))
        if limit < task.num_test:
            self.workspace.say(
                f"export: files are scored on {limit:,} of {task.num_test:,} test images, since the data "
                "is too large for memory; `test_limit` takes another number."
            )
        return limit


def _shape(space: SearchSpace, path: Path, model: keras.Model) -> dict[str, Any]:
    """Reads the shape of a network from a file and checks it.

    Raises:
        UserError: The network doesn't have this shape, because a later search replaced the file.
    """
    shape = Shape.load(path)
    expected = build_student(space, shape)
    if [weight.shape for weight in expected.weights] != [weight.shape for weight in model.weights]:
        raise UserError(
            f"`shape`: the student doesn't have the shape in {path}. Run `distill` to train it again, or give the "
            "`shape` that it was made with."
        )
    return shape.to_json()

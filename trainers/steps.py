"""The steps of a run: which settings and files each depends on. Whatever isn't named here doesn't make it stale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from tas_tf.deploy.artefacts import artefact_path
from tas_tf.deploy.tflite import INTEGER_FORMATS
from tas_tf.errors import UserError
from tas_tf.files import read_json
from tas_tf.runs.run import Run, Step
from tas_tf.student.filters import CRITERIA
from trainers import options
from trainers.session import TEACHER_ONLY, Session

_ALWAYS = ("seed", "precision", "deterministic")
_NETWORK = "What is searched"


def _settings(*groups: str, without: tuple[str, ...] = (), also: tuple[str, ...] = ()) -> dict[str, Any]:
    # Where data is kept doesn't change it; a shape counts by its content.
    chosen = options.values(*groups, without=("shape", "data_dir", *without))
    return {**chosen, **options.named(*_ALWAYS, *also)}


def is_up_to_date(session: Session, step: Step) -> bool:
    """Whether a step's result is there, from the same settings and inputs, and shall stay."""
    again = options.OVERWRITE.value and not session.keeps_what_is_up_to_date
    return not again and step.status() == "fresh"


def begin(session: Session, step: Step) -> None:
    """Readies the folder of a step that has to run, and notes the flags.

    Raises:
        UserError: A result from other settings is there and `--overwrite` isn't given, or nothing can be written.
    """
    again = not session.keeps_what_is_up_to_date or step.status() == "stale"
    step.begin(overwrite=options.OVERWRITE.value and again)
    session.write_flags(step.settings)
    progress = step.checkpoints / "progress.json"
    if progress.exists():
        Console().print(f"{step.name}: goes on after epoch {read_json(progress).get('epochs')}.", highlight=False)


def _budget(session: Session) -> dict[str, Any]:
    """The budget; what a file measures depends on what is put into it."""
    inside = options.named("preprocessing_inside", "preprocess") if session.budget.kind == "bytes" else {}
    return {"budget": str(session.budget), **inside}


def _model(session: Session) -> dict[str, Any]:
    """The network by name; a file counts by its content instead."""
    return {} if session.model_file else {"model": options.MODEL.value}


def teacher_step(session: Session) -> Step:
    """The teacher depends on network, data and training."""
    taken = session.model_file is not None
    settings = _settings("Data", also=("image_size",)) if taken else _settings("Data", "Training", also=("image_size",))
    return session.run.step(
        "teacher",
        settings={**settings, **_model(session)},
        inputs={"model": session.model_file} if taken else {},
        outputs=[session.run.teacher_model, session.run.metrics("teacher")],
    )


def _file_version(session: Session) -> int:
    """Of shapes within a budget in bytes: 2 since files carry labels and more."""
    return 2 if session.budget.kind == "bytes" else 1


def search_step(session: Session) -> Step:
    """The search depends on the network, its weights only where it starts from them."""
    settings = _settings(
        "Data", "Training", _NETWORK, "Search", without=TEACHER_ONLY, also=("image_size", "jit_compile")
    )
    settings |= _budget(session)  # of several the first drives the search
    inputs = {"model": session.model_file} if session.model_file else {}
    if not session.teacher_run.teacher_model.exists():
        options.required(options.MODEL)
    if options.SEARCH_FROM_TEACHER.value or not options.MODEL.value:
        inputs["teacher"] = session.require_teacher()
    return session.run.step(
        "search",
        settings={**settings, **_model(session)},
        inputs=inputs,
        outputs=[
            *(session.run.search_shape, session.run.probabilities, session.run.supernet_student),
            session.run.metrics("search"),
        ],
        version=_file_version(session),
    )


def decode_step(session: Session, searched: Session) -> Step:
    """A shape at another budget depends on what the search left.

    Raises:
        UserError: There was no search yet.
    """
    if not searched.run.probabilities.exists():
        raise UserError(
            f"`budget`: there is no {searched.run.probabilities}, from which to decode {session.budget}. Run `python "
            "-m trainers.search` first."
        )
    settings = {**options.values(_NETWORK, without=("shape",)), **options.named("tolerance")}
    return session.run.step(
        "search",
        settings={**settings, **_budget(session)},
        inputs={"probabilities": searched.run.probabilities},
        outputs=[session.run.search_shape, session.run.metrics("search")],
        version=_file_version(session),
    )


def baseline_step(session: Session, kind: str) -> Step:
    """A baseline takes the place of the search: the network and what may be kept of it.

    A random shape depends on seed and tolerance as well, the best of several on data and training, chosen filters on
    the teacher.

    Raises:
        UserError: The kind needs a teacher and there is none.
    """
    settings = {**_baseline_settings(session, kind), **_model(session)}
    inputs = {"model": session.model_file} if session.model_file else {}
    if kind in CRITERIA:
        inputs["teacher"] = session.require_teacher()
    return session.run.step("search", settings=settings, inputs=inputs, outputs=baseline_files(session.run, kind))


def rival_step(session: Session, rival: Session, kind: str) -> Step:
    """The shape of a rival that isn't the one found; a random one depends on what that costs.

    Raises:
        UserError: There is no teacher or no shape yet.
    """
    inputs = {"teacher": session.require_teacher()}
    if kind == "random":
        inputs["shape"] = session.require_shape()
    return rival.run.step(
        "search", settings=_baseline_settings(rival, kind), inputs=inputs, outputs=baseline_files(rival.run, kind)
    )


def _baseline_settings(session: Session, kind: str) -> dict[str, Any]:
    settings = {**options.values(_NETWORK, without=("shape",)), **_budget(session), "kind": kind}
    if kind != "random":
        return settings
    settings |= options.named("seed", "tolerance")
    if options.RANDOM_SHAPES.value > 1:
        settings |= _settings("Data", "Training", "Baseline", without=(*TEACHER_ONLY, "kind"))
        settings |= options.named("image_size", "student_lr", "split_share", "held_out_limit")
    return settings


def baseline_files(run: Run, kind: str) -> list[Path]:
    """What a baseline leaves: a shape; the network whose filters were chosen; how the best of several was found."""
    if kind in CRITERIA:
        return [run.search_shape, run.filtered_teacher]
    several = kind == "random" and options.RANDOM_SHAPES.value > 1
    return [run.search_shape, run.metrics("search")] if several else [run.search_shape]


def student_step(session: Session, *, kd: bool) -> Step:
    """The student depends on its shape, on the teacher, on data and training, and on weights that it starts from."""
    source, file = session.start()
    start = {} if file is None else {"weights": file}
    settings = _settings(
        "Data", "Training", "Distillation", without=(*TEACHER_ONLY, "rivals", "kd", "inherit"), also=("image_size",)
    )
    return session.run.step(
        "student",
        settings={**settings, "kd": kd, "start": source},
        inputs={"teacher": session.require_teacher(), "shape": session.require_shape(), **start},
        outputs=[session.run.student_model, session.run.metrics("student")],
    )


def qat_step(session: Session, name: str, *, kd: bool, float_control: bool) -> Step:
    """A network trained for 8 bits depends on what it was before, on the teacher, on data and training.

    Args:
        session: The run; of a rival its own.
        name: `student` or `teacher`.
        kd: Whether it learns from the teacher.
        float_control: Whether it is fine-tuned without quantisation as well.

    Raises:
        UserError: There is no teacher.
    """
    run = session.run
    settings = _settings("Data", also=("image_size", "batch_size", "momentum", "l2", "qat_epochs", "qat_lr"))
    inputs = {"student": run.student_model} if name == "student" else {}
    if kd or name == "teacher":
        inputs["teacher"] = session.require_teacher()
    if kd:
        settings |= options.named("kd_alpha", "kd_temperature")
    return run.step(
        f"qat_{name}",
        settings={**settings, "kd": kd, "qat_float": float_control},
        inputs=inputs,
        outputs=[run.quantised(name), run.metrics(f"qat_{name}")],
    )


def export_step(
    session: Session,
    others: Mapping[str, Path],
    formats: Sequence[str],
    *,
    quantised: Mapping[str, Path],
    shapes: Mapping[str, Path],
) -> Step:
    """The export depends on all its networks, on their shapes, which files carry, and on the data."""
    settings = _settings("Export", also=("dataset", "test_share", "preprocess", "train_limit", "image_size"))
    if set(formats) & set(INTEGER_FORMATS):
        settings |= options.named("calibration_images")
    return session.run.step(
        "export",
        settings=settings,
        inputs={
            **{"teacher": session.require_teacher(), "student": session.run.student_model, **others},
            **{f"qat_{name}": folder for name, folder in quantised.items()},
            **{f"shape of {name}": path for name, path in shapes.items()},
        },
        outputs=[
            session.run.export_dir / "metrics.json",
            *(
                artefact_path(session.run.export_dir, format, model=model)
                for model in ("student", "teacher", *others)
                for format in formats
            ),
        ],
    )

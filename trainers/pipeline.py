"""Does everything: teacher, search, student, rivals, export, report. What is there already is not done again.

Examples:
    python -m trainers.pipeline --flagfile=flags/digits.cfg
    python -m trainers.pipeline --run_dir=runs/mine --model=mine.keras --dataset=folder:photos --budget=macs:0.5
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from rich.console import Console

from export.student import export_formats, run_export
from tas_tf.baselines.rivals import RIVALS, Rival
from tas_tf.baselines.shapes import baseline_shape
from tas_tf.errors import UserError
from tas_tf.files import write_json
from tas_tf.report.comparison import compare_runs, print_comparison
from tas_tf.runs.run import Step
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import check_inheritable
from tas_tf.student.file_size import real_cost
from tas_tf.student.filters import CRITERIA
from trainers import options
from trainers.baseline import make_baseline
from trainers.command import run
from trainers.distill import run_distill
from trainers.plan import PIPED_WIDTH, show_plan
from trainers.quantise import QAT_FORMAT, check_trainable
from trainers.report import report_run
from trainers.search import run_decode_step, run_search_step
from trainers.session import Session
from trainers.settings import search_settings, student_settings, teacher_settings
from trainers.steps import begin, is_up_to_date, rival_step, search_step, student_step, teacher_step
from trainers.teacher import run_teacher


def main() -> None:
    """Runs the whole pipeline that the flags describe."""
    session = Session(keeps_what_is_up_to_date=True)
    rivals = options.one_of(options.RIVALS, RIVALS)
    if options.DRY_RUN.value:
        show_plan(session, [*_searched(session), *_of_each_budget(session, rivals)])
        return
    _check(session)
    work = {"teacher": lambda: run_teacher(session), "search": lambda: run_search_step(session)}
    for name in _searched(session):
        _do(session, name, work[name])
    for one in session.at_budgets():
        # A rival that is as it was for any budget is trained for the first one alone.
        own = rivals if one is session else [name for name in rivals if RIVALS[name].shape != "full"]
        _finish(one, own, label="" if one is session else f" at {one.budget}", searched=session)
    if len(session.budgets) > 1:
        Console().rule("all budgets", align="left")
        rows = compare_runs([str(one.run.path) for one in session.at_budgets()])
        print_comparison(rows, Console(width=None if sys.stdout.isatty() else PIPED_WIDTH))


def _finish(session: Session, rivals: Sequence[str], *, label: str, searched: Session) -> None:
    """Trains, exports and reports on the student of one budget and its rivals."""
    if session is not searched:
        _do(session, f"shape{label}", lambda: run_decode_step(session, searched))
    _do(session, f"student{label}", lambda: run_distill(session, kd=options.KD.value))
    for name in rivals:
        _do(session, f"rival {name}{label}", lambda name=name: run_rival(session, RIVALS[name]))
    _do(session, f"export{label}", lambda: run_export(session, rivals))
    Console().rule(f"report{label}", align="left")
    report_run(session, rivals={name: session.rival(name).run for name in rivals})


def _do(session: Session, name: str, work: Callable[[], bool]) -> None:
    """Does one step under its heading."""
    console = Console()
    console.rule(name, align="left")
    if not work():
        console.print("up to date", highlight=False)
    session.free_memory()


def _of_each_budget(session: Session, rivals: Sequence[str]) -> list[str]:
    """The steps behind the search, as `show_plan` takes them; a rival that is as it was for any budget comes once."""
    steps: list[str] = []
    for one in session.at_budgets():
        first = one is session
        own = [name for name in rivals if first or RIVALS[name].shape != "full"]
        names = ["student", *(f"rival {name}" for name in own)]
        if QAT_FORMAT in export_formats():
            # The teacher's serves all budgets.
            names += [f"qat {name}" for name in ("student", *(["teacher"] if first else []), *own)]
        steps += names if first else [f"{name} at {one.budget}" for name in names]
    return steps


def _searched(session: Session) -> list[str]:
    """Which of teacher and search are this run's own."""
    taken = {"teacher": session.teacher_run is not session.run, "search": bool(options.SHAPE.value)}
    return [name for name, elsewhere in taken.items() if not elsewhere]


def _check(session: Session) -> None:
    """Refuses what a later step would refuse, before hours are spent on an earlier one."""
    formats = export_formats()
    if options.INHERIT.value == "supernet" and set(options.RIVALS.value) - {"no_kd"}:
        raise UserError(
            "`--inherit=supernet` suits the shape found alone. Expected --rivals= or --rivals=no_kd with it. "
            f"Received: --rivals={','.join(options.RIVALS.value)}."
        )
    if _is_done(session):
        return
    teacher_settings(), student_settings()
    settings = search_settings()
    network = session.network if "teacher" in _searched(session) else session.unpruned_network()
    if QAT_FORMAT in formats and not options.QAT_FALLBACK.value:
        check_trainable("network", network)
    space = session.space_of(network, anew="search" in _searched(session))
    if "search" in _searched(session):
        for one in session.at_budgets():
            one.prepare(space)
        session.task.searching(settings.batch_size, settings.split_share)
    else:
        shape = session.load_shape(space)
        if session.start()[0] == "teacher":
            check_inheritable(space, shape)
    if set(options.RIVALS.value) & {"uniform", *CRITERIA}:
        for one in session.at_budgets():
            # Refused here where there is no uniform shape that cheap.
            cost, limit = one.prepare(space)
            baseline_shape("uniform", cost, limit=limit, tolerance=0, divisor=options.WIDTH_DIVISOR.value)
    session.checked_space(network, anew="search" in _searched(session))


def _is_done(session: Session) -> bool:
    """Whether teacher, search and the students of all budgets are up to date."""
    steps = {"teacher": teacher_step, "search": search_step}
    # One by one: a step that waits for the one before can't be asked yet.
    return all(is_up_to_date(session, steps[name](session)) for name in _searched(session)) and all(
        one.shape_path.exists() and is_up_to_date(one, student_step(one, kd=options.KD.value))
        for one in session.at_budgets()
    )


def run_rival(session: Session, rival: Rival) -> bool:
    """Trains a rival unless it is there; whether anything was done."""
    other = session.rival(rival.name)
    if rival.shape != "searched":
        step = rival_step(session, other, rival.shape)
        if not is_up_to_date(session, step):
            space = session.space_of(session.load_teacher())
            _make_rival(session, other, step, rival.shape, space)
    return run_distill(other, kd=options.KD.value and rival.kd)


def _make_rival(session: Session, other: Session, step: Step, kind: str, space: SearchSpace) -> None:
    """Writes the shape of a rival.

    A random one costs what the searched one costs. The others get the whole budget: it is the best that can be had
    without a search.
    """
    if kind == "full":
        begin(other, step)
        write_json(other.run.search_shape, Shape.full(space).to_json())
        step.finish()
        return
    cost, limit = session.prepare(space)
    if kind == "random":
        limit = real_cost(cost, session.load_shape(space), session.file_size(space))
    make_baseline(other, step, kind, cost, limit=limit, tolerance=limit // 50)


if __name__ == "__main__":
    run(main)

"""Does everything: teacher, search, student, rivals, export, report. What is there already is not done again.

Examples:
    python -m trainers.pipeline --flagfile=flags/digits.cfg
    python -m trainers.pipeline --run_dir=runs/mine --model=mine.keras --dataset=folder:photos --budget=macs:0.5
"""

from __future__ import annotations

from rich.console import Console

from export.student import export_formats, run_export
from tas_tf.baselines import baseline_shape
from tas_tf.budget import Budget
from tas_tf.cost import CostModel
from tas_tf.errors import UserError
from tas_tf.files import write_json
from tas_tf.filters import CRITERIA
from tas_tf.rivals import RIVALS, Rival
from tas_tf.search import prepare
from tas_tf.shape import Shape
from tas_tf.space import SearchSpace
from tas_tf.student import check_inheritable
from tas_tf.training import Step
from trainers import options
from trainers.baseline import make_baseline
from trainers.command import run
from trainers.distill import run_distill
from trainers.plan import show_plan
from trainers.report import report_run
from trainers.search import run_search_step
from trainers.session import Session
from trainers.settings import search_settings, student_settings, teacher_settings
from trainers.steps import begin, is_up_to_date, rival_step, search_step, student_step, teacher_step
from trainers.teacher import run_teacher


def main() -> None:
    """Runs the whole pipeline that the flags describe."""
    session = Session(keeps_what_is_up_to_date=True)
    rivals = options.one_of(options.RIVALS, RIVALS)
    if options.DRY_RUN.value:
        show_plan(session, [*_searched(session), "student", *(f"rival {name}" for name in rivals)])
        return
    console = Console()
    _check(session)
    work = {
        "teacher": lambda: run_teacher(session),
        "search": lambda: run_search_step(session),
        "student": lambda: run_distill(session, kd=options.KD.value),
        **{f"rival {name}": lambda name=name: run_rival(session, RIVALS[name]) for name in rivals},
        "export": lambda: run_export(session, rivals),
    }
    for name in [*_searched(session), *list(work)[2:]]:
        console.rule(name, align="left")
        if not work[name]():
            console.print("up to date", highlight=False)
        session.free_memory()
    console.rule("report", align="left")
    report_run(session, rivals={name: session.rival(name).run for name in rivals})


def _searched(session: Session) -> list[str]:
    """Which of teacher and search are this run's own."""
    taken = {"teacher": session.teacher_run is not session.run, "search": bool(options.SHAPE.value)}
    return [name for name, elsewhere in taken.items() if not elsewhere]


def _check(session: Session) -> None:
    """Refuses what a later step would refuse, before hours are spent on an earlier one."""
    export_formats()
    if options.INHERIT.value == "supernet" and set(options.RIVALS.value) - {"no_kd"}:
        raise UserError(
            "`--inherit=supernet` suits the shape found alone. Expected --rivals= or --rivals=no_kd with it. "
            f"Received: --rivals={','.join(options.RIVALS.value)}."
        )
    if _is_done(session):
        return
    teacher_settings(), student_settings()
    settings, budget = search_settings(), Budget.parse(options.BUDGET.value)
    network = session.network if "teacher" in _searched(session) else session.unpruned_network()
    space = session.space_of(network)
    if "search" in _searched(session):
        prepare(space, budget)
        session.task.searching(settings.batch_size, settings.split_share)
    else:
        shape = session.load_shape(space)
        if session.start()[0] == "teacher":
            check_inheritable(space, shape)
    for name in set(options.RIVALS.value) & {"uniform", *CRITERIA}:
        # Refused here where there is no uniform shape that cheap.
        cost, limit = prepare(space, budget)
        baseline_shape(name, cost, limit=limit, tolerance=0, divisor=options.WIDTH_DIVISOR.value)
    session.checked_space(network)


def _is_done(session: Session) -> bool:
    """Whether teacher, search and student are up to date."""
    steps = {"teacher": teacher_step, "search": search_step}
    # One by one: a step that waits for the one before can't be asked yet.
    return all(is_up_to_date(session, steps[name](session)) for name in _searched(session)) and is_up_to_date(
        session, student_step(session, kd=options.KD.value)
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
    budget = Budget.parse(options.BUDGET.value)
    cost = CostModel(space, budget.kind)
    limit = cost.of(session.load_shape(space)) if kind == "random" else budget.limit(cost.full)
    make_baseline(other, step, kind, cost, limit=limit, tolerance=limit // 50)


if __name__ == "__main__":
    run(main)

"""Does everything: teacher, search, student, rivals, export, report. What is there already is not done again.

Examples:
    python -m trainers.pipeline --flagfile=flags/digits.cfg
    python -m trainers.pipeline --run_dir=runs/mine --model=mine.keras --dataset=folder:photos --budget=macs:0.5
"""

from __future__ import annotations

import keras
from rich.console import Console

from export.student import run_export
from tas_tf.baselines import baseline_shape
from tas_tf.cost import CostModel
from tas_tf.rivals import RIVALS, Rival
from tas_tf.shape import Shape
from tas_tf.space import SearchSpace
from tas_tf.training import write_json
from trainers import options
from trainers.command import run
from trainers.distill import run_distill
from trainers.plan import show_plan
from trainers.report import report_run
from trainers.search import run_search_step
from trainers.session import Session
from trainers.teacher import run_teacher


def main() -> None:
    """Runs the whole pipeline that the flags describe."""
    session = Session()
    rivals = options.one_of(options.RIVALS, RIVALS)
    if options.DRY_RUN.value:
        show_plan(session, ["teacher", "search", "student"])
        return
    console = Console()
    session.check_budget()
    steps = [
        ("teacher", lambda: run_teacher(session)),
        ("search", lambda: run_search_step(session)),
        ("student", lambda: run_distill(session, kd=options.KD.value)),
        *((f"rival {name}", lambda name=name: run_rival(session, RIVALS[name])) for name in rivals),
        (
            "export",
            lambda: run_export(session, {name: rival_session(session, name).run.student_model for name in rivals}),
        ),
    ]
    for name, work in steps:
        console.rule(name, align="left")
        if not work():
            console.print("up to date", highlight=False)
        keras.backend.clear_session()
    console.rule("report", align="left")
    report_run(session, rivals={name: rival_session(session, name).run for name in rivals})


def rival_session(session: Session, name: str) -> Session:
    """A rival's run folder, inside the run's; teacher and data are the run's."""
    return Session(session.run.path / "rivals" / name, teacher_from=session.teacher_run.path, task=session.task)


def run_rival(session: Session, rival: Rival) -> bool:
    """Trains a rival unless it is there; whether anything was done."""
    space = session.space_of(session.load_teacher())
    other = rival_session(session, rival.name)
    shape = rival_shape(rival, space, Shape.load(session.run.search_shape))
    if not (other.run.search_shape.exists() and Shape.load(other.run.search_shape) == shape):
        other.run.prepare()
        write_json(other.run.search_shape, shape.to_json())
    return run_distill(other, kd=options.KD.value and rival.kd)


def rival_shape(rival: Rival, space: SearchSpace, searched: Shape) -> Shape:
    """The shape that a rival has: never dearer than the searched one, but for the full one."""
    if rival.shape == "searched":
        return searched
    if rival.shape == "full":
        return Shape.full(space)
    cost = CostModel(space)
    limit = cost.of(searched)
    return baseline_shape(rival.shape, cost, limit=limit, tolerance=limit // 50, seed=options.SEED.value)


if __name__ == "__main__":
    run(main)

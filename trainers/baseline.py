"""Writes a shape without a search, at the budget: what the searched one has to beat.

Examples:
    python -m trainers.baseline --kind=uniform --run_dir=runs/uniform --teacher_from=runs/mine --budget=macs:0.5
    python -m trainers.baseline --kind=l1 --run_dir=runs/l1 --teacher_from=runs/mine --budget=macs:0.5
    python -m trainers.distill --run_dir=runs/uniform --teacher_from=runs/mine
"""

from __future__ import annotations

from rich.console import Console

from tas_tf.baselines import baseline_shape
from tas_tf.budget import Budget
from tas_tf.classifier import inherited
from tas_tf.cost import CostModel
from tas_tf.files import write_json, write_model
from tas_tf.filters import CRITERIA, kept_filters
from tas_tf.random_shapes import RandomShape, best_random_shape
from tas_tf.searching import prepare
from tas_tf.shape import Shape
from tas_tf.space import SearchSpace
from trainers import options
from trainers.command import run
from trainers.session import Session
from trainers.settings import random_settings
from trainers.steps import baseline_step, begin, is_up_to_date


def main() -> None:
    """Writes the shape that the flags describe to the run folder."""
    session = Session()
    options.refuse(options.DRY_RUN)
    kind = options.required(options.KIND)
    space = session.space_of(session.unpruned_network())
    cost, limit = prepare(space, Budget.parse(options.BUDGET.value))
    console, step = Console(), baseline_step(session, kind)
    if is_up_to_date(session, step):
        shape = Shape.load(session.run.search_shape)
    else:
        shape = _make_shape(session, kind, cost, limit, console)
        begin(session, step)
        write_baseline(session, kind, space, shape)
        step.finish()
    console.print(
        f"{session.run.search_shape}: {cost.of(shape):,} {cost.kind}, budget {limit:,}. "
        "Next: python -m trainers.distill with the same flags.",
        highlight=False,
        soft_wrap=True,
    )


def _make_shape(session: Session, kind: str, cost: CostModel, limit: int, console: Console) -> Shape:
    tolerance = int(options.TOLERANCE.value * cost.full)
    if kind != "random" or options.RANDOM_SHAPES.value == 1:
        return baseline_shape(
            kind,
            cost,
            limit=limit,
            tolerance=tolerance,
            divisor=options.WIDTH_DIVISOR.value,
            seed=options.SEED.value,
        )
    session.checked_space(session.unpruned_network())

    def show(tried: RandomShape) -> None:
        console.print(f"{cost.of(tried.shape):,} {cost.kind}: held-out accuracy {tried.accuracy:.4f}", highlight=False)

    return best_random_shape(
        cost,
        session.task,
        random_settings(),
        count=options.RANDOM_SHAPES.value,
        limit=limit,
        tolerance=tolerance,
        held_out_limit=options.HELD_OUT_LIMIT.value,
        split_share=options.SPLIT_SHARE.value,
        strategy=session.strategy,
        verbose=session.verbose,
        on_tried=show,
    ).shape


def write_baseline(session: Session, kind: str, space: SearchSpace, shape: Shape) -> None:
    """Writes a baseline's shape, and where filters were chosen the network that keeps them."""
    if kind in CRITERIA:
        teacher = session.load_teacher()
        filters = kept_filters(kind, teacher, space, shape)
        write_model(session.run.filtered_teacher, inherited(teacher, space, shape, filters=filters))
    write_json(session.run.search_shape, shape.to_json())


if __name__ == "__main__":
    run(main)

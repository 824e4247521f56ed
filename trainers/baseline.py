"""Writes a shape without a search, at the budget: what the searched one has to beat.

Examples:
    python -m trainers.baseline --kind=uniform --run_dir=runs/uniform --teacher_from=runs/mine --budget=macs:0.5
    python -m trainers.baseline --kind=l1 --run_dir=runs/l1 --teacher_from=runs/mine --budget=macs:0.5
    python -m trainers.distill --run_dir=runs/uniform --teacher_from=runs/mine
"""

from __future__ import annotations

from rich.console import Console

from tas_tf.baselines.random_shapes import RandomShape, best_random_shape
from tas_tf.baselines.shapes import baseline_shape
from tas_tf.cost.cost_model import CostModel
from tas_tf.errors import UserError
from tas_tf.files import write_json, write_model
from tas_tf.runs.run import Step
from tas_tf.space.shape import Shape
from tas_tf.student.file_size import find_within, real_cost
from tas_tf.student.filters import CRITERIA, kept_filters
from tas_tf.training.network import inherited
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
    if kind != "random" and options.RANDOM_SHAPES.value > 1:
        raise UserError(f"`--random_shapes` goes with --kind=random. Received: --kind={kind}.")
    space = session.space_of(session.unpruned_network(), anew=True)
    for one in session.at_budgets():
        cost, limit = one.prepare(space)
        step = baseline_step(one, kind)
        if not is_up_to_date(one, step):
            make_baseline(one, step, kind, cost, limit=limit, tolerance=int(options.TOLERANCE.value * cost.full))
        shape = Shape.load(one.run.search_shape)
        Console().print(
            f"{one.run.search_shape}: {real_cost(cost, shape, one.file_size(space)):,} {cost.kind}, budget {limit:,}. "
            "Next: python -m trainers.distill with the same flags.",
            highlight=False,
            soft_wrap=True,
        )


def make_baseline(session: Session, step: Step, kind: str, cost: CostModel, *, limit: int, tolerance: int) -> None:
    """Makes the shape of a baseline and writes it, and where filters are chosen the network that keeps them.

    Args:
        session: The run.
        step: Its step; it is begun and finished.
        kind: Of the baseline.
        cost: What counts.
        limit: The budget.
        tolerance: How far below it a random shape may be.

    Raises:
        UserError: There is no such shape, no teacher, or a shape from other settings in the run.
    """
    if kind == "random" and options.RANDOM_SHAPES.value > 1:
        session.checked_space(session.unpruned_network())
        begin(session, step)
        shape = _best_of_several(session, step, cost, limit, tolerance)
    else:
        divisor, seed = options.WIDTH_DIVISOR.value, options.SEED.value

        def find(allowed: int) -> Shape:
            return baseline_shape(kind, cost, limit=allowed, tolerance=tolerance, divisor=divisor, seed=seed)

        shape, _ = find_within(find, cost, limit, session.file_size(cost.space))
        begin(session, step)
    if kind in CRITERIA:
        teacher = session.load_teacher()
        filters = kept_filters(kind, teacher, cost.space, shape)
        write_model(session.run.filtered_teacher, inherited(teacher, cost.space, shape, filters=filters))
    write_json(session.run.search_shape, shape.to_json())
    step.finish()


def _best_of_several(session: Session, step: Step, cost: CostModel, limit: int, tolerance: int) -> Shape:
    console, tried = Console(), []

    def note(one: RandomShape) -> None:
        tried.append({cost.kind: cost(one.shape), "held_out_accuracy": one.accuracy, "seconds": one.seconds})
        console.print(
            f"{len(tried)} of {options.RANDOM_SHAPES.value}: {cost(one.shape):,} {cost.kind}, "
            f"held-out accuracy {one.accuracy:.4f}",
            highlight=False,
        )

    best = best_random_shape(
        cost,
        session.task,
        random_settings(),
        count=options.RANDOM_SHAPES.value,
        limit=limit,
        tolerance=tolerance,
        held_out_limit=options.HELD_OUT_LIMIT.value,
        split_share=options.SPLIT_SHARE.value,
        strategy=session.strategy,
        checkpoint_dir=step.checkpoints,
        verbose=session.verbose,
        on_tried=note,
        file_size=session.file_size(cost.space),
    )
    seconds = round(sum(one["seconds"] for one in tried), 1)
    metrics = {"held_out_accuracy": best.accuracy, "seconds": seconds, "seed": options.SEED.value, "tried": tried}
    write_json(session.run.metrics("search"), metrics)
    return best.shape


if __name__ == "__main__":
    run(main)

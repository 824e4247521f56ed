"""Writes a shape without a search, at the budget: what the searched one has to beat.

Examples:
    python -m trainers.baseline --kind=uniform --run_dir=runs/uniform --teacher_from=runs/mine --budget=macs:0.5
    python -m trainers.distill --run_dir=runs/uniform --teacher_from=runs/mine
"""

from __future__ import annotations

from rich.console import Console

from tas_tf.baselines import baseline_shape
from tas_tf.budget import Budget
from tas_tf.files import write_json
from tas_tf.searching import prepare
from trainers import options
from trainers.command import run
from trainers.session import Session
from trainers.steps import baseline_step, begin, is_up_to_date


def main() -> None:
    """Writes the shape that the flags describe to the run folder."""
    session = Session()
    options.refuse(options.DRY_RUN)
    space = session.space_of(session.unpruned_network())
    cost, limit = prepare(space, Budget.parse(options.BUDGET.value))
    shape = baseline_shape(
        options.required(options.KIND),
        cost,
        limit=limit,
        tolerance=int(options.TOLERANCE.value * cost.full),
        divisor=options.WIDTH_DIVISOR.value,
        seed=options.SEED.value,
    )
    step = baseline_step(session)
    if not is_up_to_date(session, step):
        begin(session, step)
        write_json(session.run.search_shape, shape.to_json())
        step.finish()
    Console().print(f"{session.run.search_shape}: {cost.of(shape):,} {cost.kind}, budget {limit:,}.", highlight=False)


if __name__ == "__main__":
    run(main)

"""Searches the widths and depths of the student within a budget.

Examples:
    python -m trainers.search --flagfile=flags/cifar100.cfg
    python -m trainers.search --run_dir=runs/mine --model=resnet20 --dataset=digits --budget=macs:0.4
    tensorboard --logdir=runs/mine/logs
"""

from __future__ import annotations

import time

from rich.console import Console

from tas_tf.budget import Budget
from tas_tf.classifier import check_fits
from tas_tf.search_logs import SearchSummaries
from tas_tf.searching import SearchResult, SearchSettings, prepare, run_search
from tas_tf.training import write_json
from trainers import options
from trainers.command import run
from trainers.plan import show_plan
from trainers.session import Session
from trainers.steps import search_step


def main() -> None:
    """Runs the search that the flags describe, and says what comes next."""
    session = Session()
    if options.DRY_RUN.value:
        show_plan(session, ["search"])
        return
    run_search_step(session)
    command = "python -m trainers.distill with the same flags"
    Console().print(f"{session.run.search_shape} is ready. Next: {command}.", highlight=False, soft_wrap=True)


def run_search_step(session: Session) -> bool:
    """Searches unless a result is there; whether anything was done."""
    needs_teacher = options.SEARCH_FROM_TEACHER.value
    # A search needs the network, not its trained weights: it may run before the teacher.
    teacher = session.load_teacher() if session.teacher_run.teacher_model.exists() or needs_teacher else None
    network = teacher or session.build_network()
    space = session.space_of(network)
    budget = Budget.parse(options.BUDGET.value)
    prepare(space, budget)  # an unreachable budget is refused before anything is loaded or written
    check_fits(network, space, session.task)
    step = search_step(session)
    if not step.begin(overwrite=options.OVERWRITE.value):
        return False
    session.write_flags()
    started = time.monotonic()
    result = run_search(
        space,
        session.task,
        budget,
        search_settings(),
        strategy=session.strategy,
        teacher=teacher,
        callbacks=lambda monitor: [*session.callbacks("search"), SearchSummaries(session.run.logs("search"), monitor)],
        checkpoint_dir=step.checkpoints,
        verbose=session.verbose,
    )
    write_json(session.run.search_shape, result.shape.to_json())
    seconds = round(time.monotonic() - started, 1)
    write_json(
        session.run.metrics("search"),
        {**result.metrics, "seconds": seconds, "warnings": list(result.warnings), "history": result.history},
    )
    step.finish()
    _show(result)
    return True


def search_settings() -> SearchSettings:
    """The search's settings from the flags."""
    return SearchSettings(
        epochs=options.SEARCH_EPOCHS.value + options.SEARCH_WARMUP.value,
        warmup_epochs=options.SEARCH_WARMUP.value,
        batch_size=options.BATCH_SIZE.value,
        lr=options.LEARNING_RATE.value if options.SEARCH_LR.value is None else options.SEARCH_LR.value,
        momentum=options.MOMENTUM.value,
        l2=options.L2.value,
        arch_lr=options.ARCH_LR.value,
        arch_betas=options.numbers(options.ARCH_BETAS, 2),
        arch_l2=options.ARCH_L2.value,
        temperature=(options.TEMPERATURE_START.value, options.TEMPERATURE_END.value),
        num_drawn=options.NUM_DRAWN.value,
        noise=options.NOISE.value,
        tolerance=options.TOLERANCE.value,
        cost_weight=options.COST_WEIGHT.value,
        cost_driver=options.COST_DRIVER.value,
        split_share=options.SPLIT_SHARE.value,
        init_logits=options.INIT_LOGITS.value,
        from_teacher=options.SEARCH_FROM_TEACHER.value,
        calibration_batches=options.CALIBRATION_BATCHES.value,
        held_out_limit=options.HELD_OUT_LIMIT.value,
        jit_compile=options.JIT_COMPILE.value,
        seed=options.SEED.value,
    )


def _show(result: SearchResult) -> None:
    console, metrics = Console(stderr=False), result.metrics
    kind = metrics["budget_kind"]
    depths = "/".join(map(str, result.shape.depths.values())) or "none searched"
    console.print(
        f"Found: {metrics[f'shape_{kind}']:,} {kind} ({metrics[f'shape_{kind}_ratio']:.3f} of the whole; budget "
        f"{metrics[f'budget_{kind}']:,}), depths {depths}, held-out accuracy {metrics['held_out_accuracy']:.3f}.",
        highlight=False,
        soft_wrap=True,
    )
    for warning in result.warnings:
        console.print(f"warning: {warning}", style="yellow", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    run(main)

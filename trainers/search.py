"""Searches the widths and depths of the student within a budget.

Examples:
    python -m trainers.search --flagfile=flags/cifar100.cfg
    python -m trainers.search --run_dir=runs/mine --model=resnet20 --dataset=digits --budget=macs:0.4
    tensorboard --logdir=runs/mine/logs
"""

from __future__ import annotations

from rich.console import Console

from tas_tf.decode.decode import decode
from tas_tf.files import read_json, write_json, write_model
from tas_tf.searching.logs import SearchSummaries
from tas_tf.searching.run import run_search
from tas_tf.space.probabilities import from_json, to_json
from tas_tf.space.shape import Shape
from tas_tf.student.build import build_student
from tas_tf.student.file_size import find_within
from tas_tf.supernet.transfer import inherit_from_supernet
from trainers import options
from trainers.command import run
from trainers.plan import show_plan
from trainers.session import Session
from trainers.settings import search_settings
from trainers.steps import begin, decode_step, is_up_to_date, search_step


def main() -> None:
    """Runs the search that the flags describe, and says what comes next."""
    session = Session()
    if options.DRY_RUN.value:
        show_plan(session, ["search"])
        return
    states = []
    for one in session.at_budgets():
        done = run_search_step(one) if one is session else run_decode_step(one, session)
        if not done:
            _show(one)
        states.append(f"{one.run.search_shape} is {'ready' if done else 'up to date'}.")
    teacher_first = ""
    if not session.teacher_run.teacher_model.exists():
        teacher_first = " (first python -m trainers.teacher: there is no teacher yet)"
    Console().print(
        f"{' '.join(states)} Next: python -m trainers.distill with the same flags{teacher_first}.",
        highlight=False,
        soft_wrap=True,
    )


def run_search_step(session: Session) -> bool:
    """Searches unless a result is there; whether anything was done."""
    step = search_step(session)
    if is_up_to_date(session, step):
        return False
    settings = search_settings()
    # A search needs the network, not its trained weights: it may run before the teacher.
    network = session.unpruned_network()
    space = session.space_of(network, anew=True)
    for one in session.at_budgets():
        one.prepare(space)  # an unreachable budget is refused before anything is loaded or written
    session.checked_space(network, anew=True)
    session.task.searching(settings.batch_size, settings.split_share)
    begin(session, step)
    result = run_search(
        space,
        session.task,
        session.budget,
        settings,
        strategy=session.strategy,
        teacher=network if settings.from_teacher else None,
        callbacks=lambda monitor: [*session.callbacks("search"), SearchSummaries(session.run.logs("search"), monitor)],
        checkpoint_dir=step.checkpoints,
        verbose=session.verbose,
        file_size=session.file_size(space),
    )
    write_json(session.run.probabilities, to_json(space, *result.probabilities))
    write_json(session.run.search_shape, result.shape.to_json())
    student = build_student(space, result.shape)
    inherit_from_supernet(student, result.supernet, space, result.shape)
    write_model(session.run.supernet_student, student)
    write_json(
        session.run.metrics("search"),
        {**result.metrics, "warnings": list(result.warnings), "history": result.history},
    )
    step.finish()
    _show(session)
    return True


def run_decode_step(session: Session, searched: Session) -> bool:
    """Decodes the probabilities of another run's search at this one's budget; whether anything was done."""
    step = decode_step(session, searched)
    if is_up_to_date(session, step):
        return False
    space = session.space_of(session.unpruned_network())
    cost, limit = session.prepare(space)
    widths, depths = from_json(space, read_json(searched.run.probabilities))
    tolerance = int(options.TOLERANCE.value * cost.full)

    def find(allowed: int) -> Shape:
        return decode(cost, widths, depths, limit=allowed, tolerance=tolerance)

    shape, spent = find_within(find, cost, limit, session.file_size(space))
    begin(session, step)
    write_json(session.run.search_shape, shape.to_json())
    kind = cost.kind
    figures = {"budget_kind": kind, f"budget_{kind}": limit, f"shape_{kind}": spent}
    write_json(session.run.metrics("search"), {**figures, f"shape_{kind}_ratio": spent / cost.full, "warnings": []})
    step.finish()
    _show(session)
    return True


def _show(session: Session) -> None:
    """Prints what the run's search found."""
    console, metrics = Console(stderr=False), read_json(session.run.metrics("search"))
    kind = metrics["budget_kind"]
    depths = "/".join(map(str, Shape.load(session.run.search_shape).depths.values())) or "none searched"
    accuracy = metrics.get("held_out_accuracy")
    scored = "" if accuracy is None else f", held-out accuracy {accuracy:.3f}"
    console.print(
        f"Found: {metrics[f'shape_{kind}']:,} {kind} ({metrics[f'shape_{kind}_ratio']:.3f} of the whole; budget "
        f"{metrics[f'budget_{kind}']:,}), depths {depths}{scored}.",
        highlight=False,
        soft_wrap=True,
    )
    for warning in metrics["warnings"]:
        console.print(f"warning: {warning}", style="yellow", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    run(main)

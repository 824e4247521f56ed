"""Whether a student keeps a budget in time on another device: the folder to copy there, and the result that comes back.

Its shape was found by predictions, from what was measured on that device.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from tas_tf import workers
from tas_tf.deploy.artefacts import artefact_path
from tas_tf.deploy.settings import FORMATS, format_to_time
from tas_tf.errors import UserError
from tas_tf.files import read_json
from tas_tf.latency.probe import HEADER, STUDENT, content_of, differing, write_check
from tas_tf.pipeline.kept_latency import advice, is_found_for_time
from tas_tf.runs.config import RunConfig
from tas_tf.runs.origins import hash_content
from tas_tf.runs.records import read_result
from tas_tf.runs.workspace import Workspace

_VERSION = 1


def is_for_device(config: RunConfig) -> bool:
    """Whether the shape was found for a budget in time on another device."""
    return bool(config.latency.table) and is_found_for_time(config)


@workers.on_chief
def write_device_check(workspace: Workspace) -> None:
    """Writes the folder that checks the exported student on the device, unless it is there, and says what to do.

    Args:
        workspace: The run, with its files written.
    """
    config = workspace.config
    if not is_for_device(config):
        return
    header, folder = _header(config), config.run.check_dir
    if header is not None and differing(content_of(folder / HEADER), header):
        write_check(folder, _files(config, header["format"]), header)
    found = device_latency(workspace)
    if "next" in found:
        workspace.say(f"latency: {found['next']}", markup=False)


def device_latency(workspace: Workspace) -> dict[str, Any]:
    """What is known of the student's latency on the device.

    Args:
        workspace: A run for which `is_for_device` holds.

    Returns:
        `format`, `threads`, `device`, `budget_share`, `predicted_share`, and `kept`, which is `None` if nobody knows.
        If the student was timed there, also its `share` of the original's time, the `noise`, `teacher_ms` and
        `student_ms`. If something is left to do, it is `next`, in words.

    Raises:
        UserError: `student.json` isn't what the script on the device writes.
    """
    config = workspace.config
    search, header = read_result(config.run.metrics("search")), _header(config)
    known = {
        "format": search["latency_format"] if header is None else header["format"],
        "threads": search["latency_threads"],
        "device": search["latency_device"],
        "budget_share": _limit(search),
        "predicted_share": search["shape_latency_ratio"],
        "kept": None,
    }

    def to_do(text: str) -> dict[str, Any]:
        return {**known, "next": workspace.shared.wording(text, None)}

    if not config.run.metrics("export").exists():
        return to_do("the budget is not checked on the device yet: run `export` first.")
    if header is None:
        return to_do(f"the student can't be checked on {known['device']}, as no file is {known['format']}.")
    path = config.run.check_dir / STUDENT
    if differing(content_of(path.with_name(HEADER)), header):
        return to_do(f"run `export` first: {config.run.check_dir} doesn't hold this student for the device.")
    found = read_json(path) if path.exists() else None
    how = (
        f"copy {config.run.check_dir} to {known['device']}, run `python3 measure.py` in it (Android: "
        f"measure_android.sh), copy {STUDENT} back into {config.run.check_dir}, and run `report`."
    )
    if found is None or differing(found, header):
        reason = "the budget is not checked on the device yet" if found is None else f"{path} is of another student"
        return to_do(f"{reason}: {how}")
    measured = _measured(found, path)
    if measured["device"] != known["device"]:
        return to_do(f"{path} is of {measured['device']}, but the budget refers to {known['device']}: {how}")
    known |= measured
    if known["kept"] is None:
        return to_do(f"the device was too noisy to tell: {how}")
    runtime = search.get("latency_runtime", measured["runtime"])  # earlier versions didn't record it
    if measured["runtime"] != runtime:
        return to_do(
            f"{path} was measured with {measured['runtime']}, but the budget refers to {runtime}. "
            f"To check it with that, {how}"
        )
    if not known["kept"]:
        # A student is smaller by what the prediction was short of.
        smaller = known["budget_share"] * known["predicted_share"] / known["share"]
        return to_do(f"the budget is not kept. {advice(workspace, smaller)}")
    return known


def _limit(search: dict[str, Any]) -> float:
    return round(search["budget_latency"] / search["latency_full_ms"], 6)


def _files(config: RunConfig, format: str) -> list[Path]:
    return [artefact_path(config.run.export_dir, format, model=model) for model in ("teacher", "student")]


def _header(config: RunConfig) -> dict[str, Any] | None:
    """What the folder for the device says of its networks and the budget; `None` without files in the format."""
    search = read_result(config.run.metrics("search"))
    there = [format for format in FORMATS if all(path.exists() for path in _files(config, format))]
    format = format_to_time(search["latency_format"], there)
    if format is None:
        return None
    return {
        "version": _VERSION,
        "format": format,
        "threads": search["latency_threads"],
        "budget": str(config.budget),
        "budget_share": _limit(search),
        **dict(zip(("original", "student"), map(hash_content, _files(config, format)), strict=True)),
    }


def _measured(found: dict[str, Any], path: Path) -> dict[str, Any]:
    """What the device measured.

    Raises:
        UserError: An entry is missing or isn't a number.
    """
    try:
        numbers = {name: float(found[name]) for name in ("share", "noise", "teacher_ms", "student_ms")}
        if not all(math.isfinite(value) and value >= 0 for value in numbers.values()) or not numbers["share"]:
            raise ValueError("latencies must be above 0")
        if found["kept"] not in (True, False, None):
            raise ValueError("`kept` must be true, false or null")
        words = {name: str(found[name]) for name in ("device", "runtime")}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} isn't what measure.py writes: {error}. Copy it from the device again.") from error
    return {**numbers, **words, "kept": found["kept"]}

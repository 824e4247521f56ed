"""Whether a student keeps a budget in time, measured on the files that are deployed."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from tas_tf.deploy.artefacts import artefact_path
from tas_tf.files import read_json, write_json
from tas_tf.latency.measure import time_files
from tas_tf.runs.workspace import Workspace


def check_latency(workspace: Workspace, formats: Collection[str]) -> None:
    """Times the student's file in turns with the teacher's, writes the result, and says whether the budget is kept.

    Nothing happens without a budget in time. A budget on another device can't be checked here.

    Args:
        workspace: The run, with its files written.
        formats: Formats of the files.
    """
    config = workspace.config
    metrics, path = config.run.metrics("search"), config.run.latency_json
    path.unlink(missing_ok=True)
    search = read_json(metrics) if metrics.exists() else {}
    format = config.latency.file_format
    if search.get("budget_kind") != "latency" or config.latency.table or format not in formats:
        return
    files = [artefact_path(config.run.export_dir, format, model=model) for model in ("teacher", "student")]
    first, second = time_files(files, config.latency.threads)
    shares = [student / teacher for teacher, student in (first, second)]
    limit = search["budget_latency"] / (1e9 * search["latency_full_ms"])
    share, noise = float(np.mean(shares)), abs(shares[0] - shares[1])
    kept = share <= limit + noise
    write_json(path, {"format": format, "share": share, "noise": noise, "budget_share": limit, "kept": kept})
    text = (
        f"latency: the student takes {share:.3f} of the teacher's time, the budget is {limit:.3f} ({format}, threads: "
        f"{config.latency.threads}; measured twice in turns, {noise:.3f} apart)."
    )
    if kept:
        workspace.say(text)
    else:
        workspace.say(f"warning: {text} Give a smaller budget, or measure on a calmer machine.", style="yellow")

"""Shows a report as tables in the terminal; the words and figures are those of the page too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.table import Table

from tas_tf.deploy.settings import format_to_time
from tas_tf.report import speed
from tas_tf.report.by_class import class_rows, worst_in_words
from tas_tf.report.formatting import (
    KIND_NAMES,
    MISSING,
    format_bytes,
    format_count,
    format_ms,
    format_ratio,
    format_share,
)
from tas_tf.report.latencies import budget_facts, is_elsewhere, latency_lines, shares_row
from tas_tf.report.report import SAVED_MODEL
from tas_tf.report.scores import SCORES, Score, score_of, scores_by_output, value_of

# Accuracies that differ less than this from their mean over classes need no second row.
_BALANCED = 0.005
_CONTROL = "float control, fine-tuned for as long (whole test set)"
#: Scores that say more than the one that counts.
_FURTHER = ("accuracy", "roc_auc", "rmse", "r2")


def print_table(report: Mapping, *, console: Console | None = None) -> None:
    """Prints teacher, student and rivals side by side, then the paths of the files; `-` marks missing values."""
    console = console or Console()
    table = Table(title="Test set results")
    table.add_column("")
    for name in model_names(report):
        table.add_column(name, justify="right")
    for label, cells in comparison_rows(report):
        table.add_row(label, *cells)
    console.print(table)
    for line in latency_lines(report):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if worst := worst_in_words(class_rows(report, model_names(report))):
        console.print(worst, markup=False, highlight=False, soft_wrap=True)
    speeds = speed.compare_speed(report)
    if speeds:
        _print_speed(speeds, console)
    for label, path in report["files"].items():
        console.print(f"{label}: {path}", markup=False, highlight=False, soft_wrap=True)


def _print_speed(speeds: Sequence[speed.Speed], console: Console) -> None:
    table = Table(title="Student against teacher")
    for column in ("", "faster", "fewer MACs", "smaller file"):
        table.add_column(column, justify="right" if column else "left")
    for each in speeds:
        table.add_row(*speed.speed_cells(each))
    console.print(table)
    for each in speeds:
        if each.why:
            console.print(speed.explain(each), markup=False, highlight=False, soft_wrap=True)


def model_names(report: Mapping) -> list[str]:
    """Returns the names of a report's models in display order."""
    return ["teacher", "student", *report["rivals"]]


def comparison_rows(report: Mapping) -> list[tuple[str, list[str]]]:
    """Returns the rows of the comparison: a label and a cell for each model."""
    models, score = [report[name] for name in model_names(report)], score_of(report)
    rows = [
        (f"test {score.note}", [score.written(value_of(model, score)) for model in models]),
        *_further_scores(models, score),
        ("MACs", [format_count(model["macs"]) for model in models]),
        ("parameters", [format_count(model["params"]) for model in models]),
    ]
    formats = list(dict.fromkeys(name for model in models for name in model["tflite"])) or ["fp32"]
    for name in formats:
        artefacts = [model["tflite"].get(name) or {} for model in models]
        rows += [
            (f"{name}.tflite {score.title}", [score.written(value_of(artefact, score)) for artefact in artefacts]),
            (
                f"{name}.tflite agreement with Keras",
                [format_share(artefact.get("agreement")) for artefact in artefacts],
            ),
            (f"{name}.tflite size", [format_bytes(artefact.get("bytes")) for artefact in artefacts]),
            (f"{name}.tflite latency", [_format_latency(artefact) for artefact in artefacts]),
        ]
    rows += shares_row(report, model_names(report))
    control = [(model["qat"] or {}).get(f"float_{score.name}") for model in models]
    if any(value is not None for value in control):
        rows.append((_CONTROL, [score.written(value) for value in control]))
    saved = [model[SAVED_MODEL] or {} for model in models]
    if any(saved):
        rows += [
            ("SavedModel size", [format_bytes(artefact.get("bytes")) for artefact in saved]),
            ("SavedModel latency", [_format_latency(artefact) for artefact in saved]),
        ]
    return rows


def _further_scores(models: Sequence[Mapping], main: Score) -> Iterator[tuple[str, list[str]]]:
    """Rows of scores that say more than the one that counts; accuracies of balanced classes don't."""
    pairs = [(model.get("accuracy"), model.get("balanced_accuracy")) for model in models]
    unbalanced = any(abs(one - other) > _BALANCED for one, other in pairs if one is not None and other is not None)
    for name in (*(["balanced_accuracy"] if unbalanced else []), *_FURTHER):
        score = SCORES[name]
        if score != main and any(model.get(name) is not None for model in models):
            yield score.title, [score.written(model.get(name)) for model in models]
    for key, output, score in scores_by_output(models[0]):
        yield f"{output}: {score.note}", [score.written(model.get(key)) for model in models]


def headline(report: Mapping) -> list[tuple[str, str, str]]:
    """Returns the key figures: value, label, detail."""
    comparison, teacher, student = report["comparison"], report["teacher"], report["student"]
    wanted = (report["search"] or {}).get("latency_format", "fp32")
    # What was exported, if the format that counts wasn't.
    format = format_to_time(wanted, student["tflite"]) or next(iter(student["tflite"]), wanted)
    tflite = [model["tflite"].get(format) or {} for model in (teacher, student)]
    score = score_of(report)
    scores = [value_of(model, score) for model in (teacher, student)]
    pairs = {
        "macs": (format_count(teacher["macs"]), format_count(student["macs"])),
        "score": tuple(map(score.written, scores)),
        "latency": tuple(format_ms(artefact.get("latency_ms")) for artefact in tflite),
        "bytes": tuple(format_bytes(artefact.get("bytes")) for artefact in tflite),
    }
    speedup, measured = comparison["speedup"].get(format), f"measured speed, {format} TFLite"
    if is_elsewhere(report):
        latency = report["latency"]
        if "share" in latency:
            speedup = 1 / latency["share"]
            pairs["latency"] = format_ms(latency["teacher_ms"]), format_ms(latency["student_ms"])
        place = latency["device"] if "share" in latency else "this machine, not the device of the budget"
        measured = f"measured speed, {format} TFLite, on {place}"
    detail = {key: f"{before} → {after}" for key, (before, after) in pairs.items()}
    return [
        (format_ratio(comparison["macs_reduction"]), "fewer multiply-adds", detail["macs"]),
        (*score.changed(*scores), detail["score"]),
        (format_ratio(speedup), measured, detail["latency"]),
        (format_ratio(comparison["size_reduction"].get(format)), f"smaller {format} TFLite file", detail["bytes"]),
    ]


def search_facts(report: Mapping) -> list[tuple[str, str]]:
    """Returns the facts that identify a run: labels and values."""
    search, score = report["search"] or {}, score_of(report)
    entropy, ended = search.get("width_entropy"), "at the end of the search"
    found = [("mean width entropy (1 = undecided)", MISSING if entropy is None else f"{entropy:.3f}")]
    if "laps" in search:
        several = len(search["proposals"]) > 1
        ended = "after the race" if several else "after the brief training"
        found = [
            ("winner of the race", f"{search['proposal']} of {len(search['proposals'])} shapes")
            if several
            else ("shape", f"{search['proposal']} (no race: one shape)"),
            ("learning rate, as a share of the highest tried", f"{search['rate_factor']:g}"),
        ]
    held_out = search.get(f"held_out_{score.name}")
    trained = search.get("laps") != []  # a single shape and learning rate is neither trained nor scored before
    return [
        ("budget", report["budget"] or MISSING),
        *_budget_facts(report),
        ("seed", MISSING if report["seed"] is None else str(report["seed"])),
        *([(f"held-out {score.note} {ended}", score.written(held_out))] if trained else []),
        *found,
        *report["versions"].items(),
    ]


def _budget_facts(report: Mapping) -> list[tuple[str, str]]:
    search = report["search"] or {}
    kind = search.get("budget_kind", "macs")
    if kind == "latency":
        return budget_facts(report)
    return [(f"budget in {KIND_NAMES[kind]}", format_count(search.get(f"budget_{kind}")))]


def _format_latency(artefact: Mapping) -> str:
    latency, spread = artefact.get("latency_ms"), artefact.get("latency_spread_ms")
    if latency is None or spread is None:
        return format_ms(latency)
    return f"{format_ms(latency)} ± {spread / 2:.2g}"

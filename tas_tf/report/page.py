"""Writes pages: self-contained HTML files that load nothing and run no code but the page's own."""

from __future__ import annotations

import base64
import functools
import hashlib
import math
import os
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tas_tf.behaviour.behaviour import Behaviour
from tas_tf.errors import UserError
from tas_tf.extras import require_extra
from tas_tf.files import write_bytes
from tas_tf.report import answers, speed
from tas_tf.report.by_class import class_rows
from tas_tf.report.comparison import Row, cells, formats_note, table_columns
from tas_tf.report.formatting import format_bytes, format_ms, format_share, unbroken
from tas_tf.report.latencies import predictions
from tas_tf.report.layer_rows import layer_tables
from tas_tf.report.plot import plots_of, plots_of_rows
from tas_tf.report.scores import SCORES, Score, score_of, value_of
from tas_tf.report.show import comparison_rows, headline, model_names, search_facts
from tas_tf.report.snippets import make_snippets
from tas_tf.runs.run import Run

if TYPE_CHECKING:
    import jinja2

_FOLDER = Path(__file__).parent / "templates"


def render_html(report: Mapping[str, Any], path: str | Path, behaviour: Behaviour | None = None) -> Path:
    """Writes the report as one self-contained page; an existing page is replaced only by a complete one.

    Args:
        report: What `build_report` returns.
        path: File to write.
        behaviour: Answers of teacher and student on the test images, if they have been compared.

    Raises:
        UserError: If the extra `report` isn't installed.
    """
    require_extra("report")
    from tas_tf.report import figures

    names, search = model_names(report), report["search"] or {}
    classes = class_rows(report, names)
    content = {
        "heading": "The smaller network and its cost",
        "report": report,
        "names": names,
        "score": score_of(report),
        "tiles": headline(report),
        "rows": comparison_rows(report),
        "plots": plots_of(report),
        "files": _files(report, names),
        "answers": None if behaviour is None else _answers(behaviour),
        "classes": classes,
        "most_change": max((abs(row.change) for row in classes if row.change is not None), default=0.0),
        "speeds": [(each, speed.speed_cells(each)) for each in speed.compare_speed(report)],
        "layers": layer_tables(report),
        "figures": figures.draw_all(report),
        "predictions": predictions(report),
        "raced": bool(search.get("laps")),
        "laps": _laps(search.get("laps") or (), score_of(report)),
        "snippets": make_snippets(report),
        "facts": search_facts(report),
    }
    return write_page(path, "report.html", title="Report of a smaller network", sections=_sections(content), **content)


def check_page(path: str | Path) -> None:
    """Rejects a path that can't be a page.

    Raises:
        UserError: If the path doesn't end in .html or is a folder.
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"`page` must be a file that ends in .html, such as comparison.html. Received: {path}.")
    if path.is_dir():
        raise UserError(f"`page` must be a file. Received: {path}, which is a folder. Name a file in it, or elsewhere.")


def render_comparison(rows: Sequence[Row], path: str | Path, *, heading: str = "Runs side by side") -> Path:
    """Writes a comparison of runs as one self-contained page, with links to the runs' own pages.

    Args:
        rows: What `compare_runs` returns.
        path: File to write.
        heading: Heading of the page.

    Raises:
        UserError: If the extra `report` isn't installed, or `path` can't be a page.
    """
    check_page(path)
    require_extra("report")
    scores = [SCORES[name] for name in dict.fromkeys(row.metric for row in rows)]
    folder = Path(path).resolve().parent
    content = {
        "heading": heading,
        "scores": scores,
        "columns": table_columns(scores),
        "rows": [(row, cells(row, scores)) for row in rows],
        "note": formats_note(rows),
        "plots": plots_of_rows(rows),
        "runs": [
            (
                row,
                run,
                _link(run.path, folder),
                [write(run.figures.get(key)) for _, key, write in table_columns(scores)],
            )
            for row in rows
            for run in row.members
        ],
    }
    sections = {"comparison": "Comparison", "trade-off": "Score and cost", "runs": "Runs"}
    if not content["plots"]:
        del sections["trade-off"]
    return write_page(path, "comparison.html", title=heading, sections=sections, **content)


def _link(run: Path, folder: Path) -> str | None:
    """Relative link from a folder to the page of a run, if it exists."""
    page = Run(run).report_html.resolve()
    return urllib.parse.quote(Path(os.path.relpath(page, folder)).as_posix()) if page.exists() else None


def write_page(path: str | Path, template: str, *, title: str, sections: Mapping[str, str], **content: Any) -> Path:
    """Writes a page from a template.

    Args:
        path: File to write.
        template: Name of the template.
        title: Title of the page.
        sections: Titles of sections for the list of contents, by identifier.
        **content: What the template needs.
    """
    page = (
        _environment()
        .get_template(template)
        .render(
            title=title,
            sections=list(sections.items()),
            **content,
        )
    )
    return write_bytes(path, page.encode())


@functools.cache
def _environment() -> jinja2.Environment:
    import jinja2
    import markupsafe

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (_FOLDER / "script.js").read_text(encoding="utf-8")
    digest = hashlib.sha256(script.encode()).digest()
    environment.filters["unbroken"] = unbroken
    environment.globals |= {
        # Ours, so nothing in them is escaped. The page's policy lets browsers run this script alone.
        "script": markupsafe.Markup(script),
        "script_hash": f"sha256-{base64.b64encode(digest).decode()}",
        "style": markupsafe.Markup((_FOLDER / "style.css").read_text(encoding="utf-8")),
        "is_known": lambda value: value is not None and math.isfinite(value),
        "operator_cells": speed.operator_cells,
        "format_bytes": format_bytes,
        "format_ms": format_ms,
        "format_share": format_share,
    }
    return environment


def _sections(content: Mapping[str, Any]) -> dict[str, str]:
    """Titles of the sections that the page has."""
    found = {
        "comparison": ("Comparison", True),
        "trade-off": ("Score and cost", content["plots"]),
        "answers": ("Disagreement", content["answers"]),
        "calibration": ("Calibration", content["answers"]),
        "classes": ("Classes", content["classes"]),
        "speed": ("Speed and size", content["speeds"] or content["layers"]),
        "figures": ("Race" if content["raced"] else "Shape", content["figures"]),
        "deploy": ("Deploy this", content["snippets"]),
        "files": ("Files", content["report"]["files"]),
        "reproduce": ("Reproduce", True),
    }
    return {key: label for key, (label, there) in found.items() if there}


def _answers(behaviour: Behaviour) -> SimpleNamespace:
    from tas_tf.report.figures import draw_calibration

    return SimpleNamespace(
        images=behaviour.images,
        same=behaviour.agreement.same,
        parts=answers.parts_of(behaviour),
        examples=answers.examples(behaviour),
        matrices=answers.matrices(behaviour),
        confusions=answers.confusions(behaviour),
        sureness=answers.sureness(behaviour),
        calibration=answers.calibration_rows(behaviour),
        reliability=draw_calibration(behaviour.teacher.calibration, behaviour.student.calibration),
    )


def _files(report: Mapping[str, Any], names: Sequence[str]) -> list[tuple[str, str, SimpleNamespace]]:
    """Score, latency and size of all files: name of the network, format, figures."""
    score = score_of(report)
    return [
        (
            name,
            format,
            SimpleNamespace(value=value_of(file, score), latency=file.get("latency_ms"), bytes=file.get("bytes")),
        )
        for name in names
        for format, file in report[name]["tflite"].items()
    ]


def _laps(laps: Sequence[Mapping[str, Any]], score: Score) -> list[SimpleNamespace]:
    """Laps of the race with what earlier versions didn't record."""
    return [
        SimpleNamespace(**{"steps": None, "seconds": None, **lap, "score": lap.get("score", value_of(lap, score))})
        for lap in laps
    ]

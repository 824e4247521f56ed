"""Checks before a pipeline runs."""

from types import SimpleNamespace

import pytest

from tas_tf.cost.budget import Budget
from tas_tf.deploy.settings import ExportSettings
from tas_tf.errors import UserError
from tas_tf.latency.settings import LatencySettings
from tas_tf.pipeline import whole
from tas_tf.pipeline.whole import check_before
from tas_tf.runs.config import RunConfig


@pytest.mark.parametrize(
    ("table", "done", "formats", "refused", "told"),
    [
        ("latency.json", True, ("fp32",), False, True),
        ("latency.json", False, ("fp32",), True, False),
        (None, True, ("fp32",), True, False),
        (None, True, ("fp32", "qat_int8"), False, False),  # which has the same operators
    ],
)
def test_a_file_of_the_budgets_format_is_needed_unless_the_student_is_there(
    tmp_path, monkeypatch, table, done, formats, refused, told
):
    monkeypatch.setattr(whole, "_is_done", lambda steps: done)
    monkeypatch.setattr(whole, "require_extra", lambda name: None)
    said = []
    config = RunConfig(
        run_dir=str(tmp_path),
        budgets=(Budget.parse("latency:0.5"),),
        latency=LatencySettings(file_format="int8", table=table),
        export=ExportSettings(formats=formats),
    )
    workspace = SimpleNamespace(
        config=config,
        say=lambda text, **style: said.append(text),
        shared=SimpleNamespace(wording=lambda text, section: text),
    )
    if refused:
        with pytest.raises(UserError, match="so that a file of that format is written"):
            check_before(workspace, [])
    else:
        check_before(workspace, [])
    assert len(said) == told

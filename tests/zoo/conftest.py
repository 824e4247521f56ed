"""Fixtures of tests with harmful files."""

import sys
from pathlib import Path

import pytest

from tests.zoo.hostile import MODULE, new_network, old_network


@pytest.fixture
def evil(tmp_path, monkeypatch) -> Path:
    """A module that can be imported; returns the file that exists once it was."""
    (tmp_path / "evil_module.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "evil_module", raising=False)
    return tmp_path / "trace"


@pytest.fixture(params=[new_network, old_network], ids=["Keras 3", "Keras 2"])
def save(request):
    """Writes a harmless file."""
    return request.param

"""How tests are handed out to processes; `fixtures.py` has what they share."""

import gc

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Loads what tests share, except in the process that only hands out tests: it needs no TensorFlow."""
    if hasattr(config, "workerinput") or not getattr(config.option, "numprocesses", None):
        config.pluginmanager.import_plugin("tests.fixtures")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs tests that share a fixture on one worker, so that it is made once: see `--dist=loadgroup` in the Makefile.

    Tests of the finished run form one group across files; the others are grouped by file.
    """
    for item in items:
        group = "finished run" if "interrupted" in getattr(item, "fixturenames", ()) else item.nodeid.split("::")[0]
        item.add_marker(pytest.mark.xdist_group(group))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Excludes all imported objects from garbage collection, which would scan them again and again.

    Raises:
        pytest.UsageError: Groups were asked for, but pytest-xdist doesn't work with this version of pytest.
    """
    if getattr(session.config.option, "loadgroup", False) and not all("@" in item.nodeid for item in session.items):
        raise pytest.UsageError("pytest-xdist didn't group the tests. Expected the versions in requirements.txt.")
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)

"""How commands start and end."""

import json
import sys
from types import ModuleType
from unittest import mock

import pytest

from tests.commands import run_command
from trainers import baseline, search


@pytest.fixture
def chatty():
    """A command that prints while it works, as Keras does, and returns its result."""

    def main():
        print("Epoch 1/2")
        return {"accuracy": 0.5}

    module = ModuleType("chatty")
    module.main, main.__module__ = main, "chatty"
    with mock.patch.dict(sys.modules, chatty=module):
        yield module


def test_json_stands_alone_on_stdout(chatty):
    outcome = run_command(chatty, "--json")
    assert (outcome.code, json.loads(outcome.out), outcome.err) == (0, {"accuracy": 0.5}, "Epoch 1/2\n")
    assert run_command(chatty) == (0, "Epoch 1/2\n", "")


@pytest.mark.parametrize("flag", ["--json", "--dry_run", "--compare=a,b"])
def test_flags_that_a_command_would_ignore_are_refused(flag):
    outcome = run_command(baseline, flag, "--kind=uniform")
    assert (outcome.code, outcome.out) == (1, "")
    name = flag.partition("=")[0]
    assert outcome.err == f"error: This command doesn't support `{name}`. Leave it out.\n"


@pytest.mark.parametrize(
    ("argument", "hint"),
    [("mine.keras", "--model=mine.keras"), (".", "--run_dir=."), ("lr=0.1", "--lr=0.1")],
)
def test_arguments_that_are_no_flags(argument, hint):
    outcome = run_command(search, argument)
    assert outcome.code == 1
    assert outcome.err.endswith(f"Received: {argument}. Did you mean `{hint}`?\n")


@pytest.mark.parametrize(("module", "more"), [(search, []), (baseline, ["--kind=uniform"])])
def test_no_shape_is_made_beside_a_given_one(module, more, tmp_path):
    outcome = run_command(module, "--model=resnet8", f"--run_dir={tmp_path / 'run'}", "--shape=shape.json", *more)
    assert outcome.code == 1
    assert "`--shape` replaces a search or a baseline. Received: shape.json." in outcome.err
    assert not (tmp_path / "run").exists()

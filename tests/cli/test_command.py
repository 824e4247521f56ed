"""What a command makes of its arguments, and where it prints."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from unittest import mock

import pytest

from export import student
from tests.commands import quiet_environment, run_command
from trainers import baseline, describe, report, search

ROOT = Path(__file__).parents[2]

#: A command that ends before stderr gets what is held back.
COMMAND = """
import os
from tas_tf.quiet import import_tensorflow, without_notes
import_tensorflow()
from tas_tf.cli.command import run

def main():
    with without_notes():
        print("progress")
        os.write(2, b"held back")
        os._exit(0)

run(main)
"""


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


@pytest.mark.parametrize(("module", "more"), [(search, []), (baseline, ["--kind=uniform"])])
def test_no_shape_is_made_beside_a_given_one(module, more, tmp_path):
    outcome = run_command(module, "--model=resnet8", f"--run_dir={tmp_path / 'run'}", "--shape=shape.json", *more)
    assert outcome.code == 1
    assert "`--shape` replaces a search or a baseline. Received: shape.json." in outcome.err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_with_json_messages_reach_stderr_at_once():
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "--json"],
        cwd=ROOT,
        env=quiet_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "progress\n")


def test_the_network_may_stand_anywhere(trained_tiny):
    expected = run_command(describe, f"--model={trained_tiny}", "--json")
    assert expected.code == 0, expected
    assert json.loads(expected.out)["model"] == "tiny"
    for arguments in ([trained_tiny, "--json"], ["--json", trained_tiny], ["--budget", "macs:0.5", trained_tiny]):
        outcome = run_command(describe, *arguments)
        assert outcome.code == 0, outcome
        if "--json" in arguments:
            assert outcome == expected


@pytest.mark.parametrize(
    ("module", "arguments", "hint"),
    [
        (report, ["runs/mine"], "--run_dir=runs/mine"),
        (student, ["--formats=fp32", "runs/mine"], "--run_dir=runs/mine"),
        (search, ["mine.keras", "--dataset=digits"], "--model=mine.keras"),
        (describe, ["one.keras", "two.keras"], "--model=one.keras"),
        (describe, ["model=mine.keras"], "--model=mine.keras"),
    ],
)
def test_an_argument_that_is_no_flag_gets_a_hint(module, arguments, hint):
    outcome = run_command(module, *arguments)
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith("error: Expected flags only")
    assert outcome.err.endswith(f"Did you mean `{hint}`?\n")

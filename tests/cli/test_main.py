"""The console command."""

import importlib
import subprocess
import sys
from unittest import mock

import pytest

from tas_tf.cli import main as console
from tas_tf.cli import wording
from tas_tf.cli.commands import COMMANDS, command_of
from tas_tf.version import __version__
from tests.commands import fresh_flags


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    with fresh_flags(), mock.patch.object(sys, "argv", ["tas-tf", *arguments]), pytest.raises(SystemExit) as ended:
        console.main()
    captured = capsys.readouterr()
    return ended.value.code, captured.out, captured.err


@pytest.fixture(autouse=True)
def as_before():
    yield
    wording.set_program(console=False)


def test_help_fits_on_a_screen_and_names_all_commands(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert len(out.splitlines()) <= 24
    assert max(map(len, out.splitlines())) <= 100
    assert all(f"  {name} " in out for name in COMMANDS)
    assert run(capsys)[0] == 1


def test_version(capsys):
    assert run(capsys, "--version") == (0, f"tas-tf {__version__}\n", "")


def test_an_unknown_command_suggests_the_nearest(capsys):
    code, out, err = run(capsys, "serach")
    assert (code, out) == (1, "")
    assert err.startswith("error: there is no command 'serach'. Did you mean `tas-tf search`?")
    assert err.count("\n") == 1


def test_commands_know_what_they_are_called(capsys, trained_tiny):
    code, out, err = run(capsys, "describe", str(trained_tiny))
    assert (code, err) == (0, "")
    assert "images of 8x8x1, 10 classes" in out
    code, out, _ = run(capsys, "search", "--help")
    assert code == 0
    assert "tas-tf search --flagfile=flags/cifar100.cfg" in out
    assert "python -m" not in out
    code, _, err = run(capsys, "pipeline", "nowhere.keras", "--run_dir=nowhere")
    assert code == 1
    assert "no file nowhere.keras" in err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_module(name):
    module = importlib.import_module(console.module_name(name))
    assert callable(module.main)
    assert command_of(module) is COMMANDS[name]


@pytest.mark.slow
def test_as_a_module():
    done = subprocess.run([sys.executable, "-m", "tas_tf", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"tas-tf {__version__}\n"

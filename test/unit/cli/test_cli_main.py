"""The command table, its laziness, and how errors reach the user."""

from __future__ import annotations

import argparse
import subprocess
import sys
import types
from pathlib import Path

import pytest

from gps_denied_inference.cli import main as cli
from gps_denied_inference.errors import ModelNotFoundError


def install(monkeypatch: pytest.MonkeyPatch, run) -> None:
    module = types.ModuleType("gdi_test_command")
    module.HELP = "a command of the tests"
    module.add_arguments = lambda parser: parser.add_argument("--count", type=int, default=1)
    module.run = run
    monkeypatch.setitem(sys.modules, "gdi_test_command", module)
    monkeypatch.setitem(cli.COMMANDS, "probe", ("gdi_test_command", "for the tests"))


def test_arguments_reach_the_command_and_its_code_comes_back(monkeypatch) -> None:
    install(monkeypatch, lambda args: args.count)
    assert cli.main(["probe", "--count", "7"]) == 7


def test_an_error_of_ours_is_one_line_and_exit_code_1(monkeypatch, capsys) -> None:
    def run(args):
        raise ModelNotFoundError("no graph here\nfetch it first")

    install(monkeypatch, run)
    assert cli.main(["probe"]) == 1
    captured = capsys.readouterr()
    assert captured.err == "gdi: error: no graph here fetch it first\n"
    assert captured.out == ""


def test_a_foreign_error_is_not_swallowed(monkeypatch) -> None:
    def run(args):
        raise ZeroDivisionError

    install(monkeypatch, run)
    with pytest.raises(ZeroDivisionError):
        cli.main(["probe"])


@pytest.mark.parametrize("argv", [[], ["no-such-command"], ["probe", "--count", "many"]])
def test_wrong_usage_exits_with_2(monkeypatch, argv) -> None:
    install(monkeypatch, lambda args: 0)
    with pytest.raises(SystemExit) as exit_info:
        cli.main(argv)
    assert exit_info.value.code == 2


def test_help_lists_every_command_and_imports_none() -> None:
    code = (
        "import sys\n"
        "from gps_denied_inference.cli.main import COMMANDS, main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {module for module, _ in COMMANDS.values()} | {'cv2', 'torch', 'onnx', 'rclpy'}\n"
        "loaded = heavy & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in cli.COMMANDS:
        assert name in done.stdout


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_line_of_the_table_is_a_command(name: str) -> None:
    command = cli.load_command(name)
    assert isinstance(command.HELP, str)
    assert len(command.HELP) > 10
    assert callable(command.run)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    assert parser.format_help()


def test_every_command_is_in_the_table() -> None:
    folder = Path(cli.__file__).parent
    modules = {path.stem for path in folder.glob("*.py") if "def add_arguments" in path.read_text()}
    assert modules == {module.rpartition(".")[2] for module, _ in cli.COMMANDS.values()} | {"main"}

"""The command line ``gdi``: one table of commands, each loaded only when it is asked for.

A command is a module with ``HELP: str``, ``add_arguments(parser)`` and ``run(args) -> int``; one
line in :data:`COMMANDS` registers it. ``gdi --help`` imports none of them.

Exit codes: 0 done, 1 failed with one line on stderr, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Protocol, cast

from gps_denied_inference.errors import GpsDeniedInferenceError

PROGRAM = "gdi"

COMMANDS: dict[str, tuple[str, str]] = {
    "map": ("gps_denied_inference.cli.map", "prepare and check the maps that frames are found on"),
    "evaluate": ("gps_denied_inference.cli.evaluate", "say how well frames are found on a map"),
    "models": ("gps_denied_inference.cli.models", "list, fetch, verify and export networks"),
    "compile": ("gps_denied_inference.cli.compile", "prepare an engine for this machine"),
    "gate": ("gps_denied_inference.cli.gate", "say whether an engine may run on this machine"),
    "cache": ("gps_denied_inference.cli.cache", "list and prune prepared engines"),
    "sign": ("gps_denied_inference.cli.sign", "sign an engine's manifest (Ed25519)"),
    "autopilot": ("gps_denied_inference.cli.autopilot", "listen to an autopilot on the bench"),
    "bench": ("gps_denied_inference.cli.bench", "measure speed against the authors' own code"),
    "demo": ("gps_denied_inference.cli.demo", "run the real node on a flight and write a report"),
    "doctor": ("gps_denied_inference.cli.doctor", "say what this machine can run, and what not"),
    "thermal": ("gps_denied_inference.cli.thermal", "show how hot this computer is"),
    "replay": ("gps_denied_inference.cli.replay", "run a rosbag2 through the pipeline without ROS"),
    "top": ("gps_denied_inference.cli.top", "live table of a running node's status"),
}


class Command(Protocol):
    """What a command's module offers."""

    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments."""

    def run(self, args: argparse.Namespace) -> int:
        """Do it, and return the exit code."""


def load_command(name: str) -> Command:
    """Import the module behind a name of :data:`COMMANDS`."""
    return cast(Command, importlib.import_module(COMMANDS[name][0]))


def build_parser(chosen: str | None) -> tuple[argparse.ArgumentParser, Command | None]:
    """Return the parser, with the arguments of the chosen command only, and that command."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Neural features, tracks and matches for drones that navigate without GPS.",
    )
    parser.add_argument(
        "--traceback", action="store_true", help="show the whole traceback of an error"
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    command: Command | None = None
    for name, (_, summary) in COMMANDS.items():
        if name != chosen:
            subparsers.add_parser(name, help=summary)
            continue
        command = load_command(name)
        subparser = subparsers.add_parser(name, help=summary, description=command.HELP)
        command.add_arguments(subparser)
    return parser, command


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; usage errors exit with 2 as argparse does."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    show_traceback = "--traceback" in arguments
    try:
        chosen = next((word for word in arguments if not word.startswith("-")), None)
        parser, command = build_parser(chosen)
        args = parser.parse_args(arguments)
        if command is None:  # argparse has refused unknown names and missing ones by now
            parser.error("no command given")
        return command.run(args)
    except GpsDeniedInferenceError as error:
        if show_traceback:
            traceback.print_exc()
        print(f"{PROGRAM}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader went away (``gdi models list | head``): Python would complain once more when
        # it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())

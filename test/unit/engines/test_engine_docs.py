"""docs/engines.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from gps_denied_inference.cli.main import build_parser
from gps_denied_inference.engines import reasons

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "engines.md").read_text(encoding="utf-8")


def test_every_reason_is_explained_in_order() -> None:
    assert tuple(re.findall(r"^\| `(\w+)` \| (?!loaded)", TEXT, re.MULTILINE)) == reasons.ALL


def test_every_command_in_it_parses() -> None:
    commands = re.findall(r"^gdi (.+?)(?:\s+#.*)?$", TEXT, re.MULTILINE)
    assert len(commands) >= 8
    for command in commands:
        words = command.split()
        parser, _ = build_parser(words[0])
        parser.parse_args(words)

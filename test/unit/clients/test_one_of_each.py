"""What the clients and the node share is written once."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = ROOT / "gps_denied_inference"


def calls(name: str) -> set[str]:
    """Return the modules that call ``name``."""
    return {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == name
    }


def classes(name: str) -> set[str]:
    return {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and node.name == name
    }


def test_quality_of_service_is_laid_down_in_one_module() -> None:
    assert calls("QoSProfile") == {"node/qos.py"}


@pytest.mark.parametrize("service", ["ChangeState", "GetState"])
def test_one_client_asks_for_states_and_transitions(service: str) -> None:
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if f"import {service}" in (text := path.read_text(encoding="utf-8"))
        or f"import ChangeState, {service}" in text
    }
    assert users == {"clients/lifecycle_client.py"}


def test_one_protocol_stands_for_every_matcher() -> None:
    assert classes("Matcher") == {"pipeline/matcher.py"}
    assert classes("MatcherLike") == set()
    for path in PACKAGE.rglob("*.py"):
        assert "MutualNearestNeighbour | " not in path.read_text(encoding="utf-8"), path

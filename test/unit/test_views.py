"""The RViz and Foxglove views show topics and fields that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
NODE = "/inference_node/"
MESSAGES = {
    "features": "FeatureArray",
    "matches": "MatchArray",
    "status": "InferenceStatus",
    "thermal_state": "ThermalState",
}
FROM_OUTSIDE = {"/image", "/camera_info", "/fix", "/diagnostics"}


def published_topics() -> set[str]:
    """The private topics that the node's own sources name."""
    sources = [path.read_text() for path in (ROOT / "gps_denied_inference" / "node").glob("*.py")]
    return {name for source in sources for name in re.findall(r'"~/(\w+)"', source)}


def strings(tree: Any) -> Iterator[str]:
    if isinstance(tree, dict):
        for value in tree.values():
            yield from strings(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from strings(value)
    elif isinstance(tree, str):
        yield tree


def fields(message: str) -> dict[str, str]:
    """Field names of a message, each with its type."""
    lines = (ROOT / "msg" / f"{message}.msg").read_text().splitlines()
    found = (re.match(r"([\w/]+)(?:\[\d*\])?\s+(\w+)\s*(?:#|$)", line) for line in lines)
    return {match[2]: match[1] for match in found if match}


def assert_topic(path: str) -> None:
    topic, *parts = path.removeprefix(NODE).split(".")
    assert topic in published_topics(), path
    message = MESSAGES.get(topic)
    for part in parts:
        if part.startswith("@"):
            continue
        name = part.split("[")[0]
        assert message is not None, path
        assert name in fields(message), path
        message = fields(message)[name]


def test_the_check_itself_knows_the_messages() -> None:
    assert fields("InferenceStatus")["latency_p95"] == "float32"
    assert "STATE_ACTIVE" not in fields("InferenceStatus")
    with pytest.raises(AssertionError):
        assert_topic(NODE + "status.no_such_field")
    with pytest.raises(AssertionError):
        assert_topic(NODE + "no_such_topic")


@pytest.mark.parametrize("name", ["inference.rviz", "foxglove_layout.json"])
def test_topics_exist(name: str) -> None:
    text = (ROOT / "config" / name).read_text(encoding="utf-8")
    tree = json.loads(text) if name.endswith(".json") else yaml.safe_load(text)
    paths = [value for value in strings(tree) if value.startswith("/")]
    own = [path for path in paths if path.startswith(NODE)]
    assert NODE + "debug_image" in own
    for path in own:
        assert_topic(path)
    assert set(paths) - set(own) <= FROM_OUTSIDE | {"/Overlay1"}


def test_every_foxglove_panel_is_in_the_layout_once() -> None:
    layout = json.loads((ROOT / "config" / "foxglove_layout.json").read_text())
    shown = [value for value in strings(layout["layout"]) if value not in ("row", "column")]
    assert sorted(shown) == sorted(layout["configById"])

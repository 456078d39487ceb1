"""The comparison of a plain script with the node runs, and says what both took."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("task", ["extract", "track"])
def test_script_and_node_are_compared_on_the_same_frames(tmp_path: Path, task: str) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "benchmarks.script_beside_node", "--tasks", task]
    command += ["--rounds", "1", "--frames", "8", "--json", str(report)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert report.is_file(), done.stdout + done.stderr
    found = json.loads(report.read_text())
    ratio = found[task]["ratio"]
    assert set(ratio) == {"p50", "p95", "cpu"}
    assert all(math.isfinite(value) and value > 0 for value in ratio.values())
    assert done.returncode == int(ratio["p50"] > found["limit"])
    (turn,) = found[task]["turns_s"]
    assert ratio["p50"] == pytest.approx(turn["script"]["p50"] / turn["node"]["p50"])
    assert f"{task}: script / node p50" in done.stdout

"""``gdi top`` listens to a real node."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from node_process import driven


def top(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gps_denied_inference", "top", "--once", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_running_node_is_shown(tmp_path: Path) -> None:
    parameters = {"runtime": "fake", "image_width": 320, "image_height": 256}
    with driven(tmp_path, "/front", parameters) as (_, driver):
        assert driver.configure()
        assert driver.activate()
        driver.publish_until_answered(5)
        driver.wait_for_status(lambda status: status.frames_out >= 5, "five frames in the status")
        done = top("/front/inference_node", "--json", str(tmp_path / "top.json"))
    assert done.returncode == 0, done.stderr
    assert "active" in done.stdout
    assert "fake" in done.stdout
    status = json.loads((tmp_path / "top.json").read_text())["status"]
    assert status["frames_out"] >= 5
    assert f"{status['frames_out']} out" in done.stdout
    assert status["progress"] is None


def test_no_node_is_one_clear_line() -> None:
    done = top("/nobody/inference_node", "--timeout", "0.5")
    assert done.returncode == 1
    assert done.stderr.startswith("gdi: error: no status from /nobody/inference_node within 0.5 s")

"""What happens in flight: camera drop-outs, overload, supervisors and lifecycle managers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from diagnostic_msgs.msg import DiagnosticArray

from node_process import (
    ACTIVE,
    ROOT,
    UNCONFIGURED,
    NodeProcess,
    driven,
    image_message,
    textured_frames,
)

FAKE = {"runtime": "fake", "max_keypoints": 100, "status_rate": 10.0}


def test_camera_drops_out_and_returns(tmp_path: Path) -> None:
    with driven(tmp_path, parameters={**FAKE, "stall_timeout": 0.5}) as (process, driver):
        levels: list[tuple[str, bytes]] = []
        driver.node.create_subscription(
            DiagnosticArray,
            "/diagnostics",
            lambda array: levels.extend((s.name + s.message, s.level) for s in array.status),
            50,
        )
        assert driver.configure(), process.output
        assert driver.activate()
        driver.publish_until_answered(3)
        driver.wait_for_status(lambda s: s.time_since_frame > 0.5, "the silence to be measured")
        driver.wait_until(
            lambda: any(level != b"\x00" for name, level in levels if "frame" in name.lower()),
            "diagnostics to report the stall",
        )
        driver.publish_until_answered(3)
        driver.wait_for_status(
            lambda s: s.frames_out >= 6 and s.time_since_frame < 0.5, "frames to flow again"
        )
        assert driver.state() == ACTIVE


def test_every_frame_is_accounted_for(tmp_path: Path) -> None:
    """Faster than it can: what is not answered is counted, and the sum is what came in."""
    with driven(tmp_path, parameters={**FAKE, "runtime": "onnxruntime"}) as (process, driver):
        assert driver.configure(), process.output
        assert driver.activate()
        frames = textured_frames()
        for _ in range(100):
            driver.camera.publish(image_message(next(frames), stamp=time.time_ns()))
        status = driver.wait_for_status(
            lambda s: s.frames_in > 0 and s.frames_in == s.frames_out + s.frames_dropped,
            "the frames to be worked off",
        )
        driver.wait_until(
            lambda: driver.latest_status().frames_out == len(driver.features),
            "an answer for each frame out",
        )
        assert sum(status.drop_counts) == status.frames_dropped
        assert len(status.drop_reasons) == len(status.drop_counts)


def run_autostart(target: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "autostart"), target, *options],
        capture_output=True,
        text=True,
        timeout=120,
        env=dict(os.environ),
        check=False,
    )


def test_autostart_brings_a_node_up(tmp_path: Path) -> None:
    with driven(tmp_path, "/front", FAKE) as (_, driver):
        result = run_autostart("/front/inference_node")
        assert result.returncode == 0, result.stderr
        assert driver.state() == ACTIVE
        driver.publish_until_answered(2)
        # Again, on a node that is active already: nothing to do, no harm done.
        assert run_autostart("/front/inference_node").returncode == 0
        assert driver.state() == ACTIVE


def test_autostart_reports_why_not(tmp_path: Path) -> None:
    with driven(tmp_path, parameters={**FAKE, "model": "no_such_model"}) as (process, driver):
        result = run_autostart("/inference_node")
        assert result.returncode == 1
        lines = [line for line in result.stderr.splitlines() if "ERROR" in line]
        assert len(lines) == 1, result.stderr
        assert "could not be configured" in lines[0]
        assert "no_such_model" in lines[0]
        assert driver.state() == UNCONFIGURED
        assert process.process.poll() is None


def test_autostart_without_a_node() -> None:
    result = run_autostart("/nobody/inference_node", "--appear-timeout", "1")
    assert result.returncode == 3
    assert "/nobody/inference_node" in result.stderr


def test_autostart_sees_only_the_living(tmp_path: Path) -> None:
    """A node was killed and started again at once: the new one is brought up, not the dead one."""
    with NodeProcess(tmp_path, parameters=FAKE) as first:
        assert run_autostart("/inference_node").returncode == 0
        first.process.kill()
        first.wait_for_exit(5)
    with driven(tmp_path, parameters=FAKE) as (_, driver):
        assert run_autostart("/inference_node").returncode == 0
        driver.publish_until_answered(2)

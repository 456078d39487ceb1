"""What happens in flight: camera drop-outs, overload, supervisors and lifecycle managers."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from node_process import (
    ACTIVE,
    INACTIVE,
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
        heard = driver.frames_diagnostics()
        assert driver.configure(), process.output
        assert driver.activate()
        driver.publish_until_answered(3)
        driver.wait_for_status(lambda s: s.time_since_frame > 0.5, "the silence to be measured")
        driver.wait_until(
            lambda: any(s.level == DiagnosticStatus.ERROR for s in heard),
            "diagnostics to report the stall",
        )
        stalled = next(s for s in heard if s.level == DiagnosticStatus.ERROR)
        assert "no frame for" in stalled.message
        assert "/image has 1 publisher(s), but stopped after 3 messages" in stalled.message
        assert process.output.count("/image has 1 publisher(s), but stopped after") == 1
        driver.publish_until_answered(3)
        driver.wait_for_status(
            lambda s: s.frames_out >= 6 and s.time_since_frame < 0.5, "frames to flow again"
        )
        returned = len(heard)
        driver.publish_until_answered(3)
        driver.wait_until(
            lambda: any(s.level == DiagnosticStatus.OK for s in heard[returned:]),
            "diagnostics to report that frames flow again",
        )
        assert driver.state() == ACTIVE


def test_diagnostics_come_once_a_second_with_a_hardware_id(tmp_path: Path) -> None:
    parameters = {**FAKE, "status_rate": 1.0}
    with driven(tmp_path, "/left", parameters) as (process, driver):
        heard: list[tuple[float, DiagnosticArray]] = []
        driver.node.create_subscription(
            DiagnosticArray, "/diagnostics", lambda a: heard.append((time.monotonic(), a)), 50
        )
        assert driver.configure(), process.output
        assert driver.activate()
        since = len(heard)
        driver.wait_until(lambda: len(heard) >= since + 7, "seven more diagnostics")
        begin, end = heard[since][0], heard[since + 6][0]
        assert 6.0 / (end - begin) == pytest.approx(1.0, abs=0.25)
        for _, array in heard:
            assert [s.name for s in array.status] == [
                f"/left/inference_node: {task}" for task in ("runtime", "frames", "task", "thermal")
            ]
            assert all(s.hardware_id for s in array.status)
        assert {s.hardware_id for s in heard[-1][1].status} == {driver.latest_status().device}


def test_a_camera_that_nobody_started_is_named_also_in_simulated_time(tmp_path: Path) -> None:
    """The simulation's clock stands still: the watchdog runs on all the same."""
    parameters = {**FAKE, "stall_timeout": 0.5, "use_sim_time": True}
    with driven(tmp_path, "/sim", parameters) as (process, driver):
        heard = driver.frames_diagnostics()
        driver.node.destroy_publisher(driver.camera)
        assert driver.configure(), process.output
        assert driver.transition(Transition.TRANSITION_ACTIVATE)
        driver.wait_until(
            lambda: any(s.level == DiagnosticStatus.ERROR for s in heard), "the stall to be seen"
        )
        assert "nothing publishes on /sim/image" in heard[-1].message


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


def test_frames_sent_while_inactive_are_no_loss(tmp_path: Path) -> None:
    """Who does not listen loses nothing: the sender's numbers count from the first frame taken."""
    with driven(tmp_path, parameters=FAKE) as (process, driver):
        assert driver.configure(), process.output
        assert driver.activate()
        driver.publish_until_answered(2)
        assert driver.deactivate()
        frames = textured_frames()
        for _ in range(100):
            driver.camera.publish(image_message(next(frames), stamp=time.time_ns()))
        assert driver.activate()
        driver.publish_until_answered(5)
        status = driver.wait_for_status(lambda s: s.frames_out >= 7, "seven answers")
        # Once more after the time in which a gap might still be settling.
        later = len(driver.statuses) + 10
        driver.wait_until(lambda: len(driver.statuses) >= later, "a second of statuses")
        status = driver.latest_status()
        drops = dict(zip(status.drop_reasons, status.drop_counts, strict=True))
        assert status.frames_in < 50, drops


def test_transitions_under_full_fire(tmp_path: Path) -> None:
    """Frames keep coming while the node is taken up and down: it survives and loses no count."""
    parameters = {**FAKE, "image_width": 160, "image_height": 128}
    with driven(tmp_path, parameters=parameters) as (process, driver):
        stop = threading.Event()

        def fire() -> None:
            frames = textured_frames()
            while not stop.wait(0.005):
                driver.camera.publish(image_message(next(frames), stamp=time.time_ns()))

        camera = threading.Thread(target=fire)
        camera.start()
        try:
            for _ in range(3):
                assert driver.configure(), process.output
                for _ in range(4):
                    answered = len(driver.features)
                    assert driver.transition(Transition.TRANSITION_ACTIVATE), process.output
                    driver.wait_until(
                        lambda count=answered: len(driver.features) > count, "an answer"
                    )
                    assert driver.deactivate(), process.output
                status = driver.wait_for_status(
                    lambda s: (
                        s.state == INACTIVE and s.frames_in == s.frames_out + s.frames_dropped
                    ),
                    "the books to be closed",
                )
                assert status.frames_out > 0
                assert driver.cleanup(), process.output
        finally:
            stop.set()
            camera.join()
        assert driver.shutdown()
        assert process.wait_for_exit(5) == 0
        assert "Traceback" not in process.output


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

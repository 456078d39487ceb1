"""The whole life of a real node process, and its end by request and by signal."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from node_process import (
    ACTIVE,
    INACTIVE,
    UNCONFIGURED,
    Driver,
    driven,
    image_message,
    textured_frames,
)

from gps_denied_inference.msg import InferenceStatus

FAKE = {"runtime": "fake", "max_keypoints": 200, "image_width": 320, "image_height": 256}
REAL = {"runtime": "onnxruntime", "device": "cpu", "max_keypoints": 200, "threads": 1}


def bring_to(driver: Driver, state: str) -> None:
    """Take a fresh node to a state."""
    driver.wait_until(lambda: driver.state() == UNCONFIGURED, "a fresh node")
    if state in ("inactive", "active", "deactivated"):
        assert driver.configure()
    if state in ("active", "deactivated"):
        assert driver.activate()
    if state == "deactivated":
        assert driver.deactivate()


@pytest.mark.parametrize("parameters", [FAKE, REAL], ids=["fake", "onnxruntime"])
def test_whole_life(tmp_path: Path, parameters: dict[str, object]) -> None:
    with driven(tmp_path, parameters=parameters) as (process, driver):
        assert driver.state() == UNCONFIGURED
        assert driver.configure(), process.output
        assert driver.state() == INACTIVE
        assert driver.activate(), process.output
        assert driver.state() == ACTIVE

        answers = driver.publish_until_answered(50)
        for answer in answers:
            assert answer.header.frame_id == "camera"
            assert (answer.image_width, answer.image_height) == (320, 240)
            assert 0 < answer.count <= 200
            assert len(answer.keypoints) == 2 * answer.count
            assert len(answer.descriptors) == answer.count * answer.descriptor_dim
        stamps = [(a.header.stamp.sec, a.header.stamp.nanosec) for a in answers]
        assert stamps == sorted(set(stamps)), "an answer came twice or out of order"

        status = driver.wait_for_status(lambda s: s.frames_out >= 50, "50 frames in the status")
        assert status.runtime == parameters["runtime"]
        assert status.frames_in >= status.frames_out

        assert driver.deactivate()
        assert driver.state() == INACTIVE
        driver.wait_until(
            lambda: driver.camera.get_subscription_count() == 0, "the subscription to go"
        )
        count = len(driver.features)
        frames = textured_frames()
        for _ in range(5):
            driver.camera.publish(image_message(next(frames), stamp=time.time_ns()))
        # The status comes at 1 Hz: two more of them bound the time in which nothing may come.
        seen = len(driver.statuses)
        driver.wait_until(lambda: len(driver.statuses) >= seen + 2, "two more statuses")
        assert len(driver.features) == count, "output while inactive"

        assert driver.activate()
        driver.publish_until_answered(3)
        assert driver.deactivate()
        assert driver.cleanup()
        assert driver.state() == UNCONFIGURED
        assert driver.shutdown()
        assert process.wait_for_exit(5) == 0
        assert "Traceback" not in process.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("state", ["unconfigured", "inactive", "active", "deactivated"])
def test_signal_ends_cleanly(tmp_path: Path, state: str, number: signal.Signals) -> None:
    with driven(tmp_path, parameters=FAKE) as (process, driver):
        bring_to(driver, state)
        if state == "active":
            driver.publish_until_answered(2)
        start = time.monotonic()
        process.signal(number)
        assert process.wait_for_exit(5) == 0, process.output
        assert time.monotonic() - start < 2.0
        assert "Traceback" not in process.output
        assert "never retrieved" not in process.output  # what rclpy says of a callback left behind


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_signals_while_ending_change_nothing(tmp_path: Path, number: signal.Signals) -> None:
    """From the first signal to the last instant of the process, the interpreter's end included."""
    with driven(tmp_path, parameters=FAKE) as (process, driver):
        bring_to(driver, "active")
        end = time.monotonic() + 5.0
        while process.process.poll() is None and time.monotonic() < end:
            process.signal(number)
            time.sleep(0.001)
        assert process.wait_for_exit(1) == 0, process.output
        assert "Traceback" not in process.output


def start_configuring(driver: Driver) -> None:
    """Request configure, and return while it runs."""
    driver.wait_until(lambda: driver.state() == UNCONFIGURED, "a fresh node")
    request = ChangeState.Request()
    request.transition.id = Transition.TRANSITION_CONFIGURE
    driver._change.call_async(request)
    driver.wait_until(
        lambda: any(s.state == InferenceStatus.STATE_CONFIGURING for s in driver.statuses),
        "configure to begin",
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_signal_while_configuring(tmp_path: Path, number: signal.Signals) -> None:
    """A signal during configure ends the process too, once the step that runs is done."""
    with driven(tmp_path, parameters=REAL) as (process, driver):
        start_configuring(driver)
        process.signal(number)
        assert process.wait_for_exit(10) == 0, process.output
        assert "Traceback" not in process.output
        assert "running xfeat" not in process.output, "configure was over before the signal"


def test_killed_while_configuring_and_started_again(tmp_path: Path) -> None:
    """A power cut in the middle of a build: what it left behind does not harm the next start."""
    with driven(tmp_path, parameters=REAL) as (process, driver):
        start_configuring(driver)
        process.signal(signal.SIGKILL)
        assert process.wait_for_exit(5) == -signal.SIGKILL
        assert "running xfeat" not in process.output, "configure was over before the kill"
    with driven(tmp_path, parameters=REAL) as (process, driver):
        bring_to(driver, "active")
        driver.publish_until_answered(2)
        assert driver.shutdown()
        assert process.wait_for_exit(5) == 0


@pytest.mark.parametrize("state", ["unconfigured", "inactive", "active"])
def test_shutdown_from_every_state(tmp_path: Path, state: str) -> None:
    with driven(tmp_path, parameters=FAKE) as (process, driver):
        bring_to(driver, state)
        assert driver.shutdown()
        assert process.wait_for_exit(5) == 0, process.output
        assert "never retrieved" not in process.output


def test_invalid_transitions_are_survived(tmp_path: Path) -> None:
    with driven(tmp_path, parameters=FAKE) as (process, driver):
        bring_to(driver, "unconfigured")
        assert not driver.transition(Transition.TRANSITION_ACTIVATE)
        assert not driver.transition(Transition.TRANSITION_CLEANUP)
        assert driver.state() == UNCONFIGURED
        assert driver.configure()
        assert not driver.configure()
        assert not driver.deactivate()
        assert driver.state() == INACTIVE
        assert driver.activate()
        assert not driver.cleanup()
        assert driver.state() == ACTIVE
        driver.publish_until_answered(2)
        assert process.process.poll() is None


def test_two_nodes_in_two_namespaces(tmp_path: Path) -> None:
    with (
        driven(tmp_path, "/left", FAKE) as (left_process, left),
        driven(tmp_path, "/right", FAKE) as (right_process, right),
    ):
        for driver in (left, right):
            bring_to(driver, "active")
        left.publish_until_answered(5)
        assert not right.features, "one camera's frames came out of the other's node"
        right.publish_until_answered(5)
        for process, driver in ((left_process, left), (right_process, right)):
            assert driver.shutdown()
            assert process.wait_for_exit(5) == 0


def test_killed_and_started_again(tmp_path: Path) -> None:
    """What a supervisor sees: SIGKILL leaves nothing that keeps the next start from working."""
    with driven(tmp_path, parameters=REAL) as (process, driver):
        bring_to(driver, "active")
        driver.publish_until_answered(2)
        process.signal(signal.SIGKILL)
        assert process.wait_for_exit(5) == -signal.SIGKILL
    with driven(tmp_path, parameters=REAL) as (process, driver):
        bring_to(driver, "active")
        driver.publish_until_answered(2)
        assert driver.shutdown()
        assert process.wait_for_exit(5) == 0


def test_a_defect_ends_the_process_and_is_seen(tmp_path: Path) -> None:
    """A supervisor can start the node again only if it ends, also while frames are answered."""
    program = Path(__file__).parents[1] / "support" / "broken_node.py"
    with driven(tmp_path, parameters=FAKE, program=program) as (process, driver):
        bring_to(driver, "active")
        assert process.wait_for_exit(20) == 1
        assert "a defect in a callback" in process.output

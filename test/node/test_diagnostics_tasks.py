"""What each diagnostics task says, from plain state; and the publisher's pace and hardware id."""

from __future__ import annotations

import dataclasses
import math
import platform
from typing import ClassVar

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: rclpy is not installed here")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

from gps_denied_inference.msg import CameraStatus, InferenceStatus
from gps_denied_inference.node import diagnostics
from gps_denied_inference.node.diagnostics import (
    DiagnosticsPublisher,
    FramesTask,
    result_task,
    runtime_task,
    thermal_task,
)
from gps_denied_inference.pipeline.task_health import Finding
from gps_denied_inference.settings import Settings
from gps_denied_inference.thermal.state import ThermalLevel, ThermalState

OK, WARN, ERROR, STALE = (
    DiagnosticStatus.OK,
    DiagnosticStatus.WARN,
    DiagnosticStatus.ERROR,
    DiagnosticStatus.STALE,
)
SETTINGS = Settings(stall_timeout=2.0)
ACTIVE = InferenceStatus.STATE_ACTIVE
COUNTED = (
    "frames_in", "frames_out", "frames_dropped", "drop_reasons", "drop_counts", "time_since_frame",
)  # fmt: skip


def status(frames_in=0, frames_out=0, drops=None, state=ACTIVE, silent=0.01, **fields):
    drops = drops or {}
    message = InferenceStatus(state=state, frames_in=frames_in, frames_out=frames_out, **fields)
    message.frames_dropped = sum(drops.values())
    message.drop_reasons, message.drop_counts = list(drops), list(drops.values())
    message.time_since_frame = silent
    message.cameras = [camera("", message)]
    return message


def camera(name, counts):
    """The part of one camera, with the counts of a status."""
    part = CameraStatus(name=name)
    for field in COUNTED:
        setattr(part, field, getattr(counts, field))
    return part


def values(answer):
    return {pair.key: pair.value for pair in answer.values}


def test_frames_that_are_answered_are_ok():
    answer = FramesTask()(status(30, 30), SETTINGS, 10.0)
    assert answer.level == OK
    assert values(answer)["frames_in"] == "30"


def test_a_silent_camera_is_an_error_once_the_timeout_is_over():
    task = FramesTask()
    assert task(status(30, 30, silent=1.9), SETTINGS, 10.0).level == OK
    answer = task(status(30, 30, silent=2.1), SETTINGS, 10.0)
    assert answer.level == ERROR
    assert "no frame for 2.1 s" in answer.message
    assert task(status(31, 31, silent=0.01), SETTINGS, 12.0).level == OK


def test_a_camera_that_never_came_is_silent_since_activate():
    task = FramesTask()
    assert task(status(silent=math.nan), SETTINGS, 1.0).level == OK
    answer = task(status(silent=math.nan), SETTINGS, 3.0)
    assert answer.level == ERROR
    assert "no frame for 3.0 s" in answer.message


def test_the_pause_before_activate_is_no_stall():
    answer = FramesTask()(status(30, 30, silent=600.0), SETTINGS, 0.5)
    assert answer.level == OK


def test_a_stall_says_why():
    why = Finding("no publisher", "no frame for 5.0 s: nothing publishes on /left/image")
    answer = FramesTask()(status(silent=5.0), SETTINGS, 9.0, why, 0)
    assert answer.level == ERROR
    assert answer.message == why.line
    assert values(answer)["publishers"] == "0"


def test_a_task_without_result_is_a_warning():
    answer = result_task(status(task_ok=False, task_detail="no reference"))
    assert (answer.level, answer.message) == (WARN, "no reference")
    assert result_task(status(task_ok=True)).level == OK


@pytest.mark.parametrize(
    "state", [InferenceStatus.STATE_UNCONFIGURED, InferenceStatus.STATE_INACTIVE]
)
def test_without_being_active_nothing_is_wrong_with_the_frames(state):
    answer = FramesTask()(status(state=state, silent=100.0), SETTINGS, math.nan)
    assert (answer.level, answer.message) == (OK, "not active")


def test_loss_in_transport_is_named_with_its_remedy():
    task = FramesTask()
    task(status(100, 100), SETTINGS, 10.0)
    answer = task(status(130, 110, {"lost_in_transport": 20}), SETTINGS, 11.0)
    assert answer.level == WARN
    assert "20 of the last 30 frames lost on the way from the camera" in answer.message
    assert "fastdds_large_images.xml" in answer.message
    assert values(answer)["dropped_lost_in_transport"] == "20"
    assert task(status(160, 140, {"lost_in_transport": 20}), SETTINGS, 12.0).level == OK


def test_drops_are_a_warning_that_names_the_reasons():
    answer = FramesTask()(status(30, 20, {"superseded": 8, "wrong_step": 2}), SETTINGS, 10.0)
    assert answer.level == WARN
    assert "10 of the last 30" in answer.message
    assert "superseded 8" in answer.message
    assert "wrong_step 2" in answer.message


def test_one_dropped_frame_in_a_hundred_is_no_warning():
    assert FramesTask()(status(100, 99, {"superseded": 1}), SETTINGS, 10.0).level == OK


def test_counters_that_begin_again_are_not_taken_for_a_loss():
    task = FramesTask()
    task(status(1000, 900, {"superseded": 100}), SETTINGS, 10.0)
    assert task(status(30, 30), SETTINGS, 1.0).level == OK


def test_runtime_names_what_runs():
    running = InferenceStatus(
        runtime="onnxruntime", model="xfeat", provider="CPUExecutionProvider", device="cpu"
    )
    answer = runtime_task(running)
    assert answer.level == OK
    assert answer.message == "xfeat on onnxruntime (CPUExecutionProvider)"
    assert values(answer)["device"] == "cpu"


def test_runtime_repeats_why_configure_failed():
    answer = runtime_task(InferenceStatus(detail="configure failed: no such model"))
    assert (answer.level, answer.message) == (ERROR, "configure failed: no such model")


def test_runtime_without_an_engine_is_no_error():
    assert runtime_task(InferenceStatus()).level == OK
    building = InferenceStatus(state=InferenceStatus.STATE_CONFIGURING, detail="building")
    assert (runtime_task(building).level, runtime_task(building).message) == (OK, "building")


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (ThermalLevel.UNKNOWN, STALE),
        (ThermalLevel.NOMINAL, OK),
        (ThermalLevel.WARM, WARN),
        (ThermalLevel.THROTTLING, WARN),
        (ThermalLevel.CRITICAL, ERROR),
    ],
)
def test_unknown_heat_is_never_ok(level, expected):
    state = dataclasses.replace(ThermalState.unknown("why"), level=level)
    answer = thermal_task(state)
    assert answer.level == expected
    assert level.name in answer.message
    assert "why" in answer.message


class _Publisher:
    def __init__(self):
        self.sent: list[DiagnosticArray] = []

    def publish(self, message):
        self.sent.append(message)


class _Stamp:
    nanoseconds = 7

    def now(self):
        return self

    def to_msg(self):
        from builtin_interfaces.msg import Time

        return Time(sec=7)


class _Node:
    """As much of a node as the publisher asks for."""

    def __init__(self):
        self.publisher = _Publisher()

    _parameter_overrides: ClassVar[dict] = {}

    def create_publisher(self, kind, topic, qos_profile, qos_overriding_options):
        assert (kind, topic, qos_profile.depth) == (DiagnosticArray, "/diagnostics", 10)
        assert not qos_overriding_options.policy_kinds
        return self.publisher

    def get_clock(self):
        return _Stamp()

    def get_fully_qualified_name(self):
        return "/left/inference_node"

    def resolve_topic_name(self, topic):
        return f"/left/{topic}"

    def count_publishers(self, topic):
        assert topic in ("/left/image", "/left/left/image", "/left/right/image")
        return 0


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(diagnostics.time, "monotonic", lambda: now[0])
    return now


def test_the_publisher_keeps_its_pace_however_often_the_status_changes(clock):
    node = _Node()
    publisher = DiagnosticsPublisher(node)
    for tick in range(100):  # 10 s of a status that changes at 10 Hz
        clock[0] = 100.0 + tick * 0.1
        publisher.publish(status(tick, tick), ThermalState.unknown("none"), Settings())
    assert 10 <= len(node.publisher.sent) <= 20


def test_every_status_has_a_name_and_a_hardware_id(clock):
    node = _Node()
    publisher = DiagnosticsPublisher(node)
    publisher.publish(status(), ThermalState.unknown("none"), Settings())
    clock[0] += 1.0
    publisher.publish(status(device="cuda:0 Orin"), ThermalState.unknown("none"), Settings())
    first, second = node.publisher.sent
    assert [s.name for s in first.status] == [
        "/left/inference_node: runtime",
        "/left/inference_node: frames",
        "/left/inference_node: task",
        "/left/inference_node: thermal",
    ]
    assert {s.hardware_id for s in first.status} == {platform.node()}
    assert {s.hardware_id for s in second.status} == {"cuda:0 Orin"}


def test_a_stall_is_seen_while_the_simulated_clock_stands_still(clock):
    node = _Node()
    publisher = DiagnosticsPublisher(node)
    publisher.publish(status(silent=math.nan), ThermalState.unknown("none"), SETTINGS)
    clock[0] += 3.0
    publisher.publish(status(silent=math.nan), ThermalState.unknown("none"), SETTINGS)
    frames = next(s for s in node.publisher.sent[-1].status if s.name.endswith("frames"))
    assert frames.level == ERROR
    assert "no frame for 3.0 s" in frames.message


def test_each_camera_is_judged_by_its_own_counts(clock):
    node = _Node()
    publisher = DiagnosticsPublisher(node)
    both = status(60, 50, {"superseded": 10})
    both.cameras = [
        camera("left", status(30, 30)),
        camera("right", status(30, 20, {"superseded": 10}, silent=5.0)),
    ]
    publisher.publish(status(), ThermalState.unknown("none"), SETTINGS)
    clock[0] += 10.0
    silences = [None, Finding("no frame: no publisher", "nothing publishes on /right/image")]
    publisher.publish(both, ThermalState.unknown("none"), SETTINGS, silences)
    found = {s.name.split(": ")[1]: s for s in node.publisher.sent[-1].status}
    assert found["frames of left"].level == OK
    assert found["frames of left"].message == "frames are answered"
    assert found["frames of right"].level == ERROR
    assert found["frames of right"].message == "nothing publishes on /right/image"
    assert values(found["frames of right"])["dropped_superseded"] == "10"

"""The autopilot link as a process of its own: fixes in over DDS, MAVLink out over UDP."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("pymavlink", reason="pymavlink is not installed")

import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from node_process import LATCHED, ROOT, NodeProcess
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import Imu, NavSatFix
from stand_in_autopilot import StandInAutopilot
from std_msgs.msg import Float64
from test_link import eventually, free_port

from gps_denied_inference.msg import AutopilotLinkStatus, LocalizationStatus

PROGRAM = ROOT / "scripts" / "autopilot_link"


class Client:
    """This side of DDS: the link's lifecycle, a localizer that publishes, what the link says."""

    def __init__(self) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, args=[])
        self.node = rclpy.create_node("link_test", context=self.context)
        self.heard: dict[str, list[Any]] = {}
        for name, kind, profile in (
            ("autopilot_link/status", AutopilotLinkStatus, LATCHED),
            ("prior/fix", NavSatFix, 10),
            ("prior/height", Float64, 10),
            ("imu", Imu, 10),
        ):
            kept = self.heard.setdefault(name, [])
            self.node.create_subscription(kind, name, kept.append, profile)
        self.fixes = self.node.create_publisher(NavSatFix, "fix", 10)
        self.status = self.node.create_publisher(LocalizationStatus, "localization_status", 10)
        self._change = self.node.create_client(ChangeState, "autopilot_link/change_state")
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._end = threading.Event()
        self._thread.start()

    def _spin(self) -> None:
        while not self._end.is_set():
            self._executor.spin_once(0.05)

    def change(self, transition: int, limit: float = 30.0) -> bool:
        assert self._change.wait_for_service(limit)
        done = threading.Event()
        future = self._change.call_async(ChangeState.Request(transition=Transition(id=transition)))
        future.add_done_callback(lambda _: done.set())
        assert done.wait(limit)
        return bool(future.result().success)

    def latest(self) -> AutopilotLinkStatus:
        eventually(lambda: bool(self.heard["autopilot_link/status"]), "a status", 10.0)
        message: AutopilotLinkStatus = self.heard["autopilot_link/status"][-1]
        return message

    def publish_fix(self, age: float = 0.05, sigma: float = 2.0, **changes: Any) -> None:
        message = NavSatFix(latitude=47.0, longitude=8.0, altitude=500.0, **changes)
        stamp = time.time_ns() - round(age * 1e9)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
        if "position_covariance" not in changes:
            message.position_covariance = [sigma**2, 0.0, 0.0, 0.0, sigma**2, 0.0, 0.0, 0.0, 9.0]
        message.position_covariance_type = NavSatFix.COVARIANCE_TYPE_KNOWN
        self.fixes.publish(message)

    def close(self) -> None:
        self._end.set()
        self._thread.join(5.0)
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@contextmanager
def flown(
    folder: Path, **parameters: Any
) -> Iterator[tuple[NodeProcess, Client, StandInAutopilot]]:
    port = free_port()
    values = {"autopilot_url": f"udp:127.0.0.1:{port}", "status_rate": 20.0, **parameters}
    with (
        StandInAutopilot(port) as autopilot,
        NodeProcess(folder, parameters=values, program=PROGRAM) as process,
    ):
        client = Client()
        try:
            yield process, client, autopilot
        finally:
            client.close()


def test_fixes_reach_the_autopilot_and_its_state_comes_back(tmp_path: Path) -> None:
    with flown(tmp_path) as (process, client, autopilot):
        assert client.change(Transition.TRANSITION_CONFIGURE), process.output
        eventually(lambda: client.latest().yaw_aligned, "the autopilot's attitude", 10.0)
        eventually(lambda: bool(client.heard["imu"]), "an attitude as a prior", 10.0)
        eventually(lambda: bool(client.heard["prior/height"]), "a height as a prior", 10.0)
        eventually(lambda: bool(client.heard["prior/fix"]), "a position as a prior", 10.0)
        assert client.heard["prior/height"][-1].data == pytest.approx(100.0)
        prior = client.heard["prior/fix"][-1]
        assert (prior.latitude, prior.longitude) == (pytest.approx(47.0), pytest.approx(8.0))
        assert prior.position_covariance[0] == pytest.approx(625.0)
        turn = client.heard["imu"][-1].orientation
        assert (turn.z, turn.w) == (pytest.approx(math.sqrt(0.5)), pytest.approx(math.sqrt(0.5)))

        client.publish_fix()  # not active yet
        eventually(lambda: client.latest().reason == "stopped", "the reason", 10.0)
        assert autopilot.of("GLOBAL_POSITION_SENSOR") == []
        assert client.change(Transition.TRANSITION_ACTIVATE)

        def sent() -> bool:
            client.publish_fix()
            time.sleep(0.05)
            return bool(autopilot.of("GLOBAL_POSITION_SENSOR"))

        eventually(sent, "a position", 10.0)
        got = autopilot.of("GLOBAL_POSITION_SENSOR")[-1]
        assert (got.lat, got.lon, got.source) == (470_000_000, 80_000_000, 2)
        assert got.eph == pytest.approx(2.0)
        status = client.latest()
        assert status.autopilot == "px4"
        eventually(lambda: client.latest().state == AutopilotLinkStatus.STATE_ACTIVE, "active")
        eventually(lambda: client.latest().latency_p95 > 0.04, "latencies")

        client.publish_fix(age=3.0)
        eventually(lambda: client.latest().reason == "stale", "stale", 10.0)
        client.publish_fix(position_covariance=[0.0] * 9)
        eventually(lambda: client.latest().reason == "no_covariance", "no covariance", 10.0)
        assert client.change(Transition.TRANSITION_DEACTIVATE)
        assert client.change(Transition.TRANSITION_CLEANUP)
        assert client.change(Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
        assert process.wait_for_exit(10) == 0
        assert "Traceback" not in process.output


def test_a_port_that_cannot_be_opened_is_one_line_and_may_be_retried(tmp_path: Path) -> None:
    with flown(tmp_path, autopilot_url="/dev/no_such_device") as (process, client, _):
        assert not client.change(Transition.TRANSITION_CONFIGURE)
        assert "autopilot_url '/dev/no_such_device' cannot be opened" in client.latest().detail
        assert "Traceback" not in process.output
        assert not client.change(Transition.TRANSITION_CONFIGURE)
        process.signal(signal.SIGTERM)
        assert process.wait_for_exit(10) == 0, process.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly_while_active(tmp_path: Path, number: signal.Signals) -> None:
    with flown(tmp_path) as (process, client, _):
        assert client.change(Transition.TRANSITION_CONFIGURE), process.output
        assert client.change(Transition.TRANSITION_ACTIVATE)
        process.signal(number)
        assert process.wait_for_exit(10) == 0, process.output
        assert "Traceback" not in process.output

"""The autopilot link as a process of its own: fixes in over DDS, MAVLink out over UDP."""

from __future__ import annotations

import math
import signal
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("pymavlink", reason="pymavlink is not installed")

from lifecycle_msgs.msg import Transition
from link_process import flown
from test_link import eventually

from gps_denied_inference.msg import AutopilotLinkStatus


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

"""px4_topic: positions as px4_msgs/AuxGlobalPosition, read as PX4's uXRCE-DDS client does."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("pymavlink", reason="pymavlink is not installed")

try:
    from px4_msgs.msg import AuxGlobalPosition
except ImportError:
    AuxGlobalPosition = None

from lifecycle_msgs.msg import Transition
from link_process import Client, flown
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from test_link import eventually

from gps_denied_inference.autopilot.geoid import Geoid, find_grid
from gps_denied_inference.msg import AutopilotLinkStatus

TOPIC = "/fmu/in/aux_global_position_v1"
AS_PX4_READS = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.BEST_EFFORT, durability=DurabilityPolicy.VOLATILE
)
installed = pytest.mark.skipif(
    AuxGlobalPosition is None,
    reason="px4_msgs with AuxGlobalPosition is not installed: build px4_msgs of PX4 1.18 or later",
)
absent = pytest.mark.skipif(AuxGlobalPosition is not None, reason="px4_msgs is installed")


def first_position(client: Client, got: list[Any], **fix: Any) -> Any:
    """Publish fixes until one has arrived; return it."""
    before = len(got)

    def arrived() -> bool:
        client.publish_fix(**fix)
        time.sleep(0.15)  # below max_fix_rate
        return len(got) > before

    eventually(arrived, "a position", 20.0)
    return got[before]


@installed
def test_what_px4_reads_is_the_fix_in_this_computer_s_time(tmp_path: Path) -> None:
    with flown(tmp_path, px4_topic=TOPIC, agp_id=3, lost_after=1.0) as (process, client, autopilot):
        got: list[Any] = []
        client.node.create_subscription(AuxGlobalPosition, TOPIC, got.append, AS_PX4_READS)
        assert client.change(Transition.TRANSITION_CONFIGURE), process.output
        assert client.change(Transition.TRANSITION_ACTIVATE), process.output
        eventually(lambda: client.latest().yaw_aligned, "the autopilot's attitude", 10.0)

        since_us = time.time_ns() // 1000
        message = first_position(client, got, age=0.2, sigma=2.0)
        assert (message.id, message.source) == (3, AuxGlobalPosition.SOURCE_VISION)
        assert (message.lat, message.lon) == (47.0, 8.0)
        assert message.eph == pytest.approx(2.0)
        # PX4 moves both to its own clock; exposed 0.2 s before it was published.
        assert since_us < message.timestamp < time.time_ns() // 1000
        assert 200_000 <= message.timestamp - message.timestamp_sample < 5_000_000
        grid = find_grid()
        if grid is None:
            assert math.isnan(message.alt)
            assert math.isnan(message.epv)
        else:
            assert message.alt == pytest.approx(500.0 - Geoid(grid).undulation(47.0, 8.0), abs=0.01)
            assert message.epv == pytest.approx(3.0)

        said = client.heard["autopilot_link/status"]

        def has_been_lost() -> bool:  # for 1.5 s: by MAVLink a notice would come every second
            return sum(s.state == AutopilotLinkStatus.STATE_LOST for s in list(said)) >= 30

        eventually(has_been_lost, "lost", 20.0)
        assert autopilot.of("GLOBAL_POSITION_SENSOR") == []
        unknown_up = [4.0, 0.0, 0.0, 0.0, 4.0, 0.0, 0.0, 0.0, 0.0]
        message = first_position(client, got, position_covariance=unknown_up)
        assert math.isnan(message.alt)
        assert math.isnan(message.epv)
        assert "Traceback" not in process.output


@absent
def test_without_px4_msgs_configure_says_what_to_build(tmp_path: Path) -> None:
    with flown(tmp_path, px4_topic=TOPIC) as (process, client, _):
        assert not client.change(Transition.TRANSITION_CONFIGURE)
        assert (
            f"px4_topic '{TOPIC}' needs px4_msgs with AuxGlobalPosition" in client.latest().detail
        )
        assert "Traceback" not in process.output

"""MAVSDK, an independent MAVLink stack, reads back from loopback what the link sends."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

mavsdk = pytest.importorskip("mavsdk", reason="mavsdk is not installed")
pytest.importorskip("pymavlink", reason="pymavlink is not installed")

from mavsdk.plugins.mavlink_direct import MavlinkDirect, MavlinkMessage
from test_link import COVARIANCE, eventually, free_port

from gps_denied_inference.autopilot.connection import Connection
from gps_denied_inference.autopilot.fix import AskedKind, Fix
from gps_denied_inference.autopilot.link import AutopilotLink
from gps_denied_inference.autopilot.outgoing import Odometry
from gps_denied_inference.autopilot.policy import PolicyLimits

GOOD = {"time_usec": 1, "flags": 47, "pos_horiz_accuracy": 25.0, "pos_vert_accuracy": 1.0} | {
    f"{name}_ratio": 0.0 for name in ("vel", "pos_horiz", "pos_vert", "mag", "hagl", "tas")
}


@contextmanager
def linked_to_mavsdk(kind: AskedKind) -> Iterator[tuple[AutopilotLink, dict[str, dict[str, Any]]]]:
    """A link, and the newest fields by message as MAVSDK decoded them in the autopilot's place."""
    port = free_port()
    connection = Connection(f"udpin:127.0.0.1:{port}")
    link = AutopilotLink(connection, PolicyLimits(), kind=kind, source_id=3)
    thread = threading.Thread(target=link.run)
    thread.start()
    link.start()
    got: dict[str, dict[str, Any]] = {}
    try:
        with mavsdk.Mavsdk(mavsdk.Configuration.create_manual(1, 1, True)) as sdk:
            sdk.add_any_connection(f"udpout://127.0.0.1:{port}")
            eventually(lambda: bool(sdk.get_systems()), "MAVSDK sees the link")
            direct = MavlinkDirect(sdk.get_systems()[0])
            direct.subscribe_message(
                "", lambda m, *_: got.__setitem__(m.message_name, json.loads(m.fields_json))
            )

            def ready() -> bool:
                said = json.dumps(GOOD)
                direct.send_message(MavlinkMessage("ESTIMATOR_STATUS", 1, 1, 0, 0, said))
                return link.snapshot().autopilot.yaw_aligned

            eventually(ready, "an attitude")
            yield link, got
            direct.destroy()
    finally:
        link.end()
        thread.join(5.0)
        connection.close()


def test_px4s_position_and_odometry_are_read_back() -> None:
    with linked_to_mavsdk("px4") as (link, got):
        sent = Fix(time.time_ns() - 50_000_000, -33.8567844, 151.2152967, 58.5, COVARIANCE)
        assert link.offer_fix(sent).send
        eventually(lambda: "GLOBAL_POSITION_SENSOR" in got, "the position")
        fields = got["GLOBAL_POSITION_SENSOR"]
        assert (fields["lat"], fields["lon"]) == (-338_567_844, 1_512_152_967)
        assert (fields["eph"], fields["epv"], fields["alt_ellipsoid"]) == (2.0, 3.0, 58.5)
        assert (fields["id"], fields["source"], fields["flags"]) == (3, 2, 0)
        assert fields["alt"] is None  # NaN: no geoid was given
        assert fields["processing_time"] == pytest.approx(50_000, abs=30_000)

        diagonal = np.diag([1.0, 2, 3, 4, 5, 6]).ravel().tolist()
        pose = Odometry(
            time.time_ns(), (10.0, 20.0, 30.0), (0.0, 0.0, 0.0, 1.0), (1.0, 2.0, 3.0),
            (0.1, 0.2, 0.3), diagonal, diagonal, reset_counter=3, quality=0.5,
        )  # fmt: skip
        assert link.offer_odometry(pose)
        eventually(lambda: "ODOMETRY" in got, "the odometry")
        fields = got["ODOMETRY"]
        assert (fields["x"], fields["y"], fields["z"]) == (20.0, 10.0, -30.0)
        assert (fields["frame_id"], fields["child_frame_id"]) == (20, 12)
        assert (fields["reset_counter"], fields["quality"]) == (3, 50)
        assert fields["pose_covariance"][0] == 2.0


def test_ardupilots_command_is_read_back() -> None:
    with linked_to_mavsdk("ardupilot") as (link, got):
        assert link.offer_fix(Fix(time.time_ns() - 50_000_000, 1.5, -2.5, 9.0, COVARIANCE)).send
        eventually(lambda: "COMMAND_INT" in got, "the command")
        fields = got["COMMAND_INT"]
        assert (fields["command"], fields["frame"]) == (43003, 0)
        assert (fields["x"], fields["y"], fields["z"]) == (15_000_000, -25_000_000, None)
        assert fields["param3"] == 2.0
        assert fields["param2"] == pytest.approx(0.05, abs=0.03)

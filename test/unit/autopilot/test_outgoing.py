"""What ODOMETRY says of its own quality."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("pymavlink", reason="pymavlink is not installed")

from pymavlink.dialects.v20 import ardupilotmega as mavlink

from gps_denied_inference.autopilot.outgoing import Odometry, odometry


@pytest.mark.parametrize(
    ("quality", "said"),
    [(1.0, 100), (0.5, 50), (0.004, 1), (0.0, 1), (7.0, 100), (math.nan, 0)],
)
def test_a_poor_pose_is_the_worst_and_not_an_unknown_one(quality: float, said: int) -> None:
    covariance = [0.0] * 36
    pose = Odometry(
        1, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0),
        covariance, covariance, quality=quality,
    )  # fmt: skip
    assert odometry(mavlink.MAVLink(None), pose, None).quality == said

"""How uncertain the autopilot's own position is taken to be."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("pymavlink", reason="pymavlink is not installed")

from pymavlink.dialects.v20 import ardupilotmega as mavlink

from gps_denied_inference.autopilot.incoming import (
    SILENT_POSITION_SIGMA,
    Telemetry,
    position_sigma,
)

SECOND = 1_000_000_000
MAX_SPEED = 40.0
MAV = mavlink.MAVLink(None)


def gps(fix_type: int, h_acc: int = 0) -> mavlink.MAVLink_gps_raw_int_message:
    return MAV.gps_raw_int_encode(0, fix_type, 0, 0, 0, 0, 0, 0, 0, 0, 0, h_acc, 0, 0, 0)


def sigma(telemetry: Telemetry, now_ns: int) -> float:
    return position_sigma(telemetry.state, now_ns, MAX_SPEED)


def test_the_estimator_s_word_comes_first() -> None:
    telemetry = Telemetry()
    telemetry.take(gps(3, 1500), SECOND)
    assert sigma(telemetry, SECOND) == pytest.approx(1.5)
    estimator = MAV.estimator_status_encode(0, 1, 0, 0, 0, 0, 0, 0, 25.0, 1.0)
    telemetry.take(estimator, 2 * SECOND)
    assert sigma(telemetry, 2 * SECOND) == pytest.approx(25.0)


def test_a_gps_that_says_no_accuracy_is_taken_for_a_poor_one() -> None:
    telemetry = Telemetry()
    telemetry.take(gps(3), SECOND)
    assert sigma(telemetry, SECOND) == SILENT_POSITION_SIGMA


@pytest.mark.parametrize("h_acc", [0, 1500])  # some go on saying what the last one was
def test_without_gps_it_grows_as_far_as_the_aircraft_can_have_flown(h_acc: int) -> None:
    telemetry = Telemetry()
    telemetry.take(gps(3, 1500), SECOND)
    telemetry.take(gps(1, h_acc), 2 * SECOND)
    for seconds in (1, 60):
        grown = SILENT_POSITION_SIGMA + MAX_SPEED * seconds
        assert sigma(telemetry, (1 + seconds) * SECOND) == pytest.approx(grown)
    telemetry.take(gps(3, 1500), 90 * SECOND)
    assert sigma(telemetry, 90 * SECOND) == pytest.approx(1.5)


def test_nothing_is_known_where_gps_was_never_seen_or_it_started_anew() -> None:
    telemetry = Telemetry()
    telemetry.take(gps(0), SECOND)
    assert math.isnan(sigma(telemetry, SECOND))
    telemetry.take(gps(3, 1500), 2 * SECOND)
    telemetry.take(MAV.attitude_encode(60_000, 0, 0, 0, 0, 0, 0), 2 * SECOND)
    assert telemetry.take(MAV.attitude_encode(100, 0, 0, 0, 0, 0, 0), 3 * SECOND)
    telemetry.take(gps(1), 3 * SECOND)
    assert math.isnan(sigma(telemetry, 3 * SECOND))

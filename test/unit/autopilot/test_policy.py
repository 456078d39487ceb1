"""What is sent to the autopilot, and what is not, and why."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from gps_denied_inference.autopilot.fix import AutopilotState, Fix
from gps_denied_inference.autopilot.policy import (
    REASONS,
    FixPolicy,
    LinkState,
    PolicyLimits,
    distance,
)
from gps_denied_inference.errors import InvalidParameterError

SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND
PX4 = AutopilotState(kind="px4", heard_ns=1, yaw_aligned=True)
GOOD = Fix(NOW - SECOND // 5, 47.0, 8.0, 500.0, (4.0, 0.0, 0.0, 0.0, 4.0, 0.0, 0.0, 0.0, 9.0))


def active(**limits: float) -> FixPolicy:
    policy = FixPolicy(PolicyLimits(**limits))
    policy.start()
    return policy


def later(seconds: float, **changes: object) -> Fix:
    stamp = GOOD.stamp_ns + round(seconds * SECOND)
    return dataclasses.replace(GOOD, stamp_ns=stamp, **changes)


def covered(*covariance: float) -> Fix:
    return dataclasses.replace(GOOD, covariance=covariance)


def test_a_good_fix_is_sent_with_its_sigma():
    policy = active()
    verdict = policy.consider(GOOD, NOW, PX4, 0.1)
    assert verdict.send
    assert verdict.sigma == pytest.approx(2.0)
    assert policy.state is LinkState.ACTIVE


@pytest.mark.parametrize(
    ("reason", "fix", "autopilot", "heard"),
    [
        ("no_autopilot", GOOD, PX4, 10.0),
        ("yaw_not_aligned", GOOD, dataclasses.replace(PX4, yaw_aligned=False), 0.1),
        ("gps_in_use", GOOD, dataclasses.replace(PX4, kind="ardupilot", gps_in_use=True), 0.1),
        ("not_finite", dataclasses.replace(GOOD, latitude=math.nan), PX4, 0.1),
        ("not_finite", dataclasses.replace(GOOD, covariance=(math.inf,) * 9), PX4, 0.1),
        ("off_earth", dataclasses.replace(GOOD, latitude=90.1), PX4, 0.1),
        ("no_covariance", dataclasses.replace(GOOD, covariance=(0.0,) * 9), PX4, 0.1),
        ("no_covariance", dataclasses.replace(GOOD, covariance=(-1.0, *(0.0,) * 8)), PX4, 0.1),
        ("no_covariance", covered(1, 5, 0, 5, 1, 0, 0, 0, 1), PX4, 0.1),
        ("stale", later(-2.0), PX4, 0.1),
        ("from_the_future", later(1.0), PX4, 0.1),
        ("uncertain", covered(1e4, 0, 0, 0, 1, 0, 0, 0, 1), PX4, 0.1),
    ],
)  # fmt: skip
def test_each_bad_fix_is_refused_by_name(reason, fix, autopilot, heard):
    policy = active()
    verdict = policy.consider(fix, NOW, autopilot, heard)
    assert (verdict.send, verdict.reason) == (False, reason)
    assert policy.counts == {reason: 1}
    assert policy.state is LinkState.WAITING


def test_nothing_is_sent_before_start_and_after_stop():
    policy = FixPolicy(PolicyLimits())
    assert policy.consider(GOOD, NOW, PX4, 0.1).reason == "stopped"
    policy.start()
    assert policy.consider(GOOD, NOW, PX4, 0.1).send
    policy.stop()
    assert policy.consider(later(1.0), NOW + SECOND, PX4, 0.1).reason == "stopped"


def test_order_and_rate_are_kept():
    policy = active(max_rate=2.0)
    assert policy.consider(GOOD, NOW, PX4, 0.1).send
    assert policy.consider(later(-0.05), NOW + SECOND // 10, PX4, 0.1).reason == "out_of_order"
    assert policy.consider(later(0.2), NOW + SECOND // 4, PX4, 0.1).reason == "rate"
    assert policy.consider(later(0.6), NOW + SECOND * 6 // 10, PX4, 0.1).send


def test_a_jump_needs_an_announced_reset():
    policy = active(max_speed=20.0, gate=3.0)
    assert policy.consider(GOOD, NOW, PX4, 0.1).send
    far = later(1.0, latitude=47.01)  # 1.1 km
    assert policy.consider(far, NOW + SECOND, PX4, 0.1).reason == "inconsistent"
    verdict = policy.consider(dataclasses.replace(far, reset_counter=1), NOW + SECOND, PX4, 0.1)
    assert verdict.send
    assert verdict.is_reset
    assert policy.resets == 1


def test_gps_that_returns_stops_the_link_only_where_it_is_asked_to_for_px4():
    with_gps = dataclasses.replace(PX4, gps_in_use=True)
    assert active().consider(GOOD, NOW, with_gps, 0.1).send
    assert active(stop_on_gps=True).consider(GOOD, NOW, with_gps, 0.1).reason == "gps_in_use"


def test_a_position_that_stops_coming_is_lost_and_found_again():
    policy = active(lost_after=5.0)
    assert policy.tick(NOW, PX4, 0.1) is LinkState.WAITING
    policy.consider(GOOD, NOW, PX4, 0.1)
    assert policy.tick(NOW + 4 * SECOND, PX4, 0.1) is LinkState.ACTIVE
    assert policy.tick(NOW + 6 * SECOND, PX4, 0.1) is LinkState.LOST
    assert policy.consider(later(6.0), NOW + 6 * SECOND, PX4, 0.1).send
    assert policy.state is LinkState.ACTIVE
    assert policy.tick(NOW + 7 * SECOND, PX4, 10.0) is LinkState.WAITING


def test_sigma_never_goes_below_the_floor():
    tiny = dataclasses.replace(GOOD, covariance=(1e-6, 0, 0, 0, 1e-6, 0, 0, 0, 1e-6))
    assert active(min_sigma=0.8).consider(tiny, NOW, PX4, 0.1).sigma == pytest.approx(0.8)


@pytest.mark.parametrize(
    "limits", [{"max_age": 0.0}, {"max_rate": math.nan}, {"min_sigma": 60.0}, {"gate": math.inf}]
)
def test_bounds_that_are_none_are_refused(limits):
    with pytest.raises(InvalidParameterError):
        PolicyLimits(**limits)


def test_distances_over_the_date_line_and_at_the_pole():
    assert distance(0.0, 179.9999, 0.0, -179.9999) == pytest.approx(22.24, abs=0.1)
    assert distance(90.0, 0.0, 90.0, 123.0) == pytest.approx(0.0, abs=1e-3)


def test_every_reason_is_explained_and_none_is_invented():
    rng = np.random.default_rng(1)
    policy = active()
    for _ in range(2000):
        odd = rng.choice([0.0, 47.0, 90.0, 91.0, -180.0, math.nan, math.inf], 2)
        covariance = tuple(rng.choice([0.0, 1.0, 9.0, -1.0, math.nan, 1e9], 9))
        fix = Fix(NOW + int(rng.integers(-3, 2)) * SECOND, *odd, 1.0, covariance)
        policy.consider(fix, NOW, PX4, float(rng.choice([0.1, 9.0])))
    assert set(policy.counts) - {"sent"} <= set(REASONS)

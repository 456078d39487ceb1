"""The closed loop: what is commanded at each level, and how seldom it changes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gps_denied_inference.errors import InvalidParameterError
from gps_denied_inference.thermal.policy import PolicyConfig, ThermalPolicy
from gps_denied_inference.thermal.state import ThermalLevel, ThermalState

L = ThermalLevel


def state(level: ThermalLevel) -> ThermalState:
    return ThermalState(
        source="sysfs", level=level, is_telemetry_available=level > 0, reason=f"made {level.name}"
    )


def run(policy: ThermalPolicy, *steps: tuple[float, ThermalLevel]) -> list[ThermalLevel]:
    return [policy.update(state(level), now).level for now, level in steps]


@pytest.mark.parametrize(
    ("level", "rate"),
    [
        (L.UNKNOWN, math.nan),
        (L.NOMINAL, math.nan),
        (L.WARM, 20),
        (L.THROTTLING, 10),
        (L.CRITICAL, 2),
    ],
)
def test_each_level_commands_its_documented_rate(level: ThermalLevel, rate: float) -> None:
    action = ThermalPolicy().update(state(level), 0.0)
    assert action.frame_rate_limit == pytest.approx(rate, nan_ok=True)
    assert action.keypoint_limit == 0
    assert action.may_activate
    assert (f"at most {rate:g} Hz" in action.description) == (level >= L.WARM)
    assert ("made" in action.description) == (level >= L.WARM)


def test_keypoint_limits_are_commanded_where_they_are_given() -> None:
    policy = ThermalPolicy(PolicyConfig(throttling_keypoints=500, critical_keypoints=250))
    assert policy.update(state(L.THROTTLING), 0.0).keypoint_limit == 500
    action = policy.update(state(L.CRITICAL), 10.0)
    assert action.keypoint_limit == 250
    assert "at most 250 keypoints" in action.description


def test_critical_refuses_activation_at_once_where_the_parameter_says_so() -> None:
    policy = ThermalPolicy(PolicyConfig(refuse_when_critical=True, dwell=5))
    assert policy.update(state(L.WARM), 0.0).may_activate
    # The dwell delays the level that is acted upon, never the refusal.
    action = policy.update(state(L.CRITICAL), 1.0)
    assert action.level is L.WARM
    assert not action.may_activate
    assert "activation refused" in action.description
    assert not policy.update(state(L.CRITICAL), 6.0).may_activate
    assert not policy.update(state(L.NOMINAL), 7.0).may_activate
    assert policy.update(state(L.NOMINAL), 12.5).may_activate


def test_rises_at_once_and_falls_after_the_dwell() -> None:
    policy = ThermalPolicy(PolicyConfig(dwell=5))
    assert run(
        policy,
        (0, L.NOMINAL),
        (1, L.WARM),
        (2, L.NOMINAL),
        (5.9, L.NOMINAL),
        (7.0, L.NOMINAL),
    ) == [L.NOMINAL, L.WARM, L.WARM, L.WARM, L.NOMINAL]


def test_one_hot_reading_starts_the_count_anew() -> None:
    policy = ThermalPolicy(PolicyConfig(dwell=5))
    assert run(
        policy,
        (0, L.THROTTLING),
        (6, L.NOMINAL),
        (10, L.THROTTLING),
        (11, L.NOMINAL),
        (15.9, L.NOMINAL),
        (16, L.NOMINAL),
    )[-2:] == [L.THROTTLING, L.NOMINAL]


def test_falls_to_the_hottest_level_seen_while_waiting() -> None:
    policy = ThermalPolicy(PolicyConfig(dwell=5))
    levels = run(policy, (0, L.CRITICAL), (6, L.NOMINAL), (8, L.WARM), (11, L.NOMINAL))
    assert levels[-1] is L.WARM


def test_a_lost_reading_never_relaxes() -> None:
    policy = ThermalPolicy(PolicyConfig(dwell=5))
    assert set(run(policy, (0, L.THROTTLING), *((t, L.UNKNOWN) for t in range(1, 1000)))) == {
        L.THROTTLING
    }
    action = policy.update(state(L.UNKNOWN), 1000.0)
    assert "held while UNKNOWN" in action.description
    assert action.frame_rate_limit == 10
    # Nor does it count towards the dwell of a level that is left.
    assert run(policy, (1001, L.NOMINAL), (1004, L.UNKNOWN), (1007, L.NOMINAL))[-1] is L.THROTTLING


def test_switched_off_it_commands_nothing() -> None:
    policy = ThermalPolicy(PolicyConfig(enabled=False, refuse_when_critical=True))
    action = policy.update(state(L.CRITICAL), 0.0)
    assert math.isnan(action.frame_rate_limit)
    assert (action.keypoint_limit, action.may_activate, action.description) == (0, True, "")


def test_the_action_is_written_into_the_state() -> None:
    hot = state(L.THROTTLING)
    written = ThermalPolicy().update(hot, 0.0).written_into(hot)
    assert written.policy_enabled
    assert written.frame_rate_limit == 10
    assert written.action.startswith("frame rate at most 10 Hz: THROTTLING")
    assert written.level is L.THROTTLING


@pytest.mark.parametrize(
    "values",
    [
        {"dwell": 0.1},
        {"dwell": math.nan},
        {"warm_rate": -1.0},
        {"warm_rate": math.nan},
        {"warm_rate": 5.0, "throttling_rate": 10.0},
        {"critical_rate": 0.0},
        {"throttling_keypoints": 100, "critical_keypoints": 0},
        {"critical_keypoints": -1},
    ],
)
def test_a_config_that_makes_no_sense_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(InvalidParameterError):
        PolicyConfig(**values)  # type: ignore[arg-type]


@given(
    st.lists(st.tuples(st.floats(0, 3), st.sampled_from(list(ThermalLevel))), max_size=120),
    st.floats(0.5, 10),
)
def test_no_two_changes_are_closer_than_the_dwell(
    steps: list[tuple[float, ThermalLevel]], dwell: float
) -> None:
    policy = ThermalPolicy(PolicyConfig(dwell=dwell))
    now, before, changed = 0.0, L.UNKNOWN, None
    for step, level in steps:
        now += step
        after = policy.update(state(level), now).level
        if after is not before:
            assert after is not L.UNKNOWN
            if before not in (L.UNKNOWN, L.NOMINAL) or changed is not None:
                assert changed is not None
                assert now - changed >= dwell - 1e-9
            if not (before is L.UNKNOWN and after is L.NOMINAL):
                changed = now
            before = after


@given(
    st.lists(
        st.tuples(
            st.floats(allow_nan=True, allow_infinity=True), st.sampled_from(list(ThermalLevel))
        ),
        max_size=60,
    )
)
def test_no_time_makes_it_raise(steps: list[tuple[float, ThermalLevel]]) -> None:
    policy = ThermalPolicy()
    for now, level in steps:
        policy.update(state(level), now)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"warm_rate": 5.0}, "'thermal_throttling_rate' = 10.0.*thermal_warm_rate = 5"),
        ({"critical_rate": 0.0}, "'thermal_critical_rate' = 0.0.*thermal_throttling_rate = 10"),
        ({"dwell": 0.1}, "'thermal_dwell'"),
        ({"throttling_keypoints": -1}, "'thermal_reduced_keypoints'"),
    ],
)
def test_bounds_are_named_as_the_parameters_are(changes: dict[str, float], words: str) -> None:
    with pytest.raises(InvalidParameterError, match=words):
        PolicyConfig(**changes)  # type: ignore[arg-type]


def test_no_limit_at_a_hot_level_where_the_cooler_ones_have_none() -> None:
    PolicyConfig(warm_rate=0, throttling_rate=0, critical_rate=0)

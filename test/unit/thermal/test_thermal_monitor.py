"""A reader that hangs, throws or lies never reaches whoever asks for the state."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gps_denied_inference.errors import InvalidParameterError, ThermalReadError
from gps_denied_inference.thermal.monitor import ThermalMonitor
from gps_denied_inference.thermal.policy import PolicyConfig, ThermalPolicy
from gps_denied_inference.thermal.state import ThermalLevel, ThermalSensor, ThermalState

WARM = ThermalState(
    stamp_ns=5,
    source="fake",
    level=ThermalLevel.WARM,
    is_telemetry_available=True,
    sensors=(ThermalSensor("cpu", online=True, temperature=80.0),),
)


class FakeSource:
    """Answers with what ``behave`` does."""

    name = "fake"

    def __init__(self, behave: Callable[[], Any]) -> None:
        self.behave = behave
        self.reads = 0
        self.closed = threading.Event()
        self.closed_in: threading.Thread | None = None

    def read(self) -> Any:
        self.reads += 1
        return self.behave()

    def close(self) -> None:
        self.closed_in = threading.current_thread()
        self.closed.set()


def wait_for(condition: Callable[[], bool], timeout: float = 20.0) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "condition not met in time"
        time.sleep(0.002)


def raiser(error: BaseException) -> Callable[[], Any]:
    def behave() -> Any:
        raise error

    return behave


def test_a_good_reading_comes_through_with_its_age() -> None:
    source = FakeSource(lambda: WARM)
    with ThermalMonitor(source, 0.5) as monitor:
        wait_for(lambda: monitor.latest().is_telemetry_available)
        state = monitor.latest()
        assert state.level is ThermalLevel.WARM
        assert 0 <= state.sample_age < 0.5
        assert state.stamp_ns == 5
    assert source.closed.wait(20)


def test_before_the_first_reading_and_after_the_end_it_is_unknown() -> None:
    monitor = ThermalMonitor(FakeSource(lambda: WARM), 0.05)
    assert "has not been started" in monitor.latest().reason
    monitor.start()
    monitor.start()
    wait_for(lambda: monitor.latest().is_telemetry_available)
    monitor.stop()
    monitor.stop()
    state = monitor.latest()
    assert state.level is ThermalLevel.UNKNOWN
    assert "stopped" in state.reason
    with pytest.raises(RuntimeError):
        monitor.start()


def test_stopping_one_that_never_started_closes_its_source() -> None:
    source = FakeSource(lambda: WARM)
    ThermalMonitor(source).stop()
    assert source.closed.is_set()


@pytest.mark.parametrize(
    ("behave", "said"),
    [
        (raiser(ThermalReadError("the bus is\ngone")), "ThermalReadError: the bus is gone"),
        (raiser(ZeroDivisionError()), "ZeroDivisionError: no message"),
        (lambda: None, "NoneType"),
    ],
)
def test_a_reader_that_fails_is_unknown_with_reason_and_age(
    behave: Callable[[], Any], said: str
) -> None:
    source = FakeSource(lambda: WARM)
    with ThermalMonitor(source, 0.05) as monitor:
        wait_for(lambda: monitor.latest().is_telemetry_available)
        source.behave = behave
        wait_for(lambda: not monitor.latest().is_telemetry_available)
        state = monitor.latest()
        assert state.level is ThermalLevel.UNKNOWN
        assert said in state.reason or "has not answered" in state.reason
        assert state.sample_age >= 0
        assert state.stamp_ns == 5
        assert state.source == "fake"
        source.behave = lambda: WARM
        wait_for(lambda: monitor.latest().is_telemetry_available)


def test_a_reader_that_hangs_is_unknown_within_two_periods_and_recovers() -> None:
    gate = threading.Event()
    gate.set()

    def behave() -> ThermalState:
        gate.wait(60)
        return WARM

    source = FakeSource(behave)
    with ThermalMonitor(source, 0.2) as monitor:
        wait_for(lambda: monitor.latest().is_telemetry_available)
        gate.clear()
        blocked = time.monotonic()
        wait_for(lambda: not monitor.latest().is_telemetry_available)
        # The last answer may lie one period before the gate fell; never is it later than two.
        assert time.monotonic() - blocked <= 0.4 + 0.2
        state = monitor.latest()
        assert "fake reader has not answered for" in state.reason
        assert state.sample_age > 0.4
        begin = time.monotonic()
        for _ in range(100):
            monitor.latest()
        assert time.monotonic() - begin < 0.5
        gate.set()
        wait_for(lambda: monitor.latest().is_telemetry_available)


def test_a_first_read_that_hangs_has_no_age() -> None:
    gate = threading.Event()
    now = [100.0]
    source = FakeSource(lambda: gate.wait(60))
    monitor = ThermalMonitor(source, 1.0, clock=lambda: now[0])
    monitor.start()
    assert "no reading yet" in monitor.latest().reason
    now[0] += 2.1
    state = monitor.latest()
    assert "has not answered for 2.1 s" in state.reason
    assert math.isnan(state.sample_age)
    gate.set()
    monitor.stop()


def test_stop_leaves_a_blocked_reader_behind_and_it_closes_the_source_itself() -> None:
    gate = threading.Event()
    source = FakeSource(lambda: gate.wait(60))
    monitor = ThermalMonitor(source, 0.05)
    monitor.start()
    wait_for(lambda: source.reads > 0)
    begin = time.monotonic()
    monitor.stop()
    assert time.monotonic() - begin < 5
    # Closing it under a read that is still going on would be unsafe.
    assert not source.closed.is_set()
    gate.set()
    assert source.closed.wait(20)
    assert source.closed_in is not None
    assert source.closed_in.name == "thermal-reader"
    assert source.closed_in.daemon


def test_offline_sensors_stay_visible_while_unknown() -> None:
    offline = ThermalState(sensors=(ThermalSensor("gpu"),), reason="no sensor", source="fake")
    with ThermalMonitor(FakeSource(lambda: offline), 0.05) as monitor:
        wait_for(lambda: bool(monitor.latest().sensors))
        assert monitor.latest().reason == "no sensor"


@pytest.mark.parametrize("period", [0.0, -1.0, math.nan, 1e9])
def test_a_period_out_of_bounds_is_refused(period: float) -> None:
    with pytest.raises(InvalidParameterError):
        ThermalMonitor(FakeSource(lambda: WARM), period)


BEHAVIOURS: list[Callable[[], Any]] = [
    lambda: WARM,
    lambda: None,
    lambda: ThermalState.unknown("offline"),
    raiser(OSError(5, "Input/output error")),
    raiser(ValueError("nan")),
    raiser(ThermalReadError("gone")),
]


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(range(6)), st.floats(0, 4)), max_size=30))
def test_any_sequence_of_readings_is_safe(steps: list[tuple[int, float]]) -> None:
    """Without the thread: read by read, with a clock of our own, and the policy behind it."""
    now = [0.0]
    source = FakeSource(lambda: WARM)
    monitor = ThermalMonitor(source, 1.0, clock=lambda: now[0])
    monitor._thread = threading.current_thread()  # as if it had been started
    policy = ThermalPolicy(PolicyConfig(dwell=3))
    good_at = None
    for number, step in steps:
        source.behave = BEHAVIOURS[number]
        monitor._read_once()
        if number == 0:
            good_at = now[0]
        now[0] += step
        state = monitor.latest()
        assert state.is_telemetry_available == (number == 0 and step <= 2.0)
        assert state.is_telemetry_available == (state.level is not ThermalLevel.UNKNOWN)
        assert state.reason or state.is_telemetry_available
        if good_at is None:
            assert math.isnan(state.sample_age)
        else:
            assert state.sample_age == pytest.approx(now[0] - good_at)
        action = policy.update(state, now[0])
        assert action.level in (ThermalLevel.UNKNOWN, ThermalLevel.WARM)

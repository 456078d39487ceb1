"""A pass that hangs is told from one that waits for a processor."""

from __future__ import annotations

import os
import threading
import time

import pytest

from gps_denied_inference.runtimes import stopwatch as module
from gps_denied_inference.runtimes.stopwatch import LONGEST_STEP, Stopwatch


class Engines:
    running_since: float | None = None


class Clock:
    """Seconds that pass, whether the watched thread could run, and seconds that it ran."""

    now = ran = 0.0
    runnable = False


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module.time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(Stopwatch, "_scheduled", lambda self: (clock.runnable, clock.ran))
    return clock


def look(stopwatch: Stopwatch, clock: Clock, times: int, step: float, ran: float = 0.0) -> float:
    for _ in range(times):
        clock.now += step
        clock.ran += ran
        seconds = stopwatch.seconds()
    return seconds


def test_a_pass_that_sleeps_is_timed_by_the_clock_and_the_next_begins_anew(clock: Clock) -> None:
    engines = Engines()
    stopwatch = Stopwatch(engines, 1)
    assert look(stopwatch, clock, 10, 0.05) == 0.0
    engines.running_since = 1.0
    assert look(stopwatch, clock, 31, 0.05) == pytest.approx(1.5)
    engines.running_since = 2.0
    assert look(stopwatch, clock, 1, 0.05) == 0.0
    assert look(stopwatch, clock, 2, 0.05) == pytest.approx(0.1)


def test_a_stopped_process_and_a_thread_without_processor_are_not_counted(clock: Clock) -> None:
    engines = Engines()
    engines.running_since = 1.0
    stopwatch = Stopwatch(engines, 1)
    look(stopwatch, clock, 1, 0.05)
    assert look(stopwatch, clock, 1, 60.0) == pytest.approx(LONGEST_STEP)
    clock.runnable = True
    assert look(stopwatch, clock, 100, 0.05) == pytest.approx(LONGEST_STEP)
    assert look(stopwatch, clock, 100, 0.05, ran=0.01) == pytest.approx(LONGEST_STEP + 1.0)
    assert look(stopwatch, clock, 20, 0.05, ran=0.05) == pytest.approx(LONGEST_STEP + 2.0)


def test_the_kernel_says_what_a_thread_does() -> None:
    if not os.path.exists("/proc/self/schedstat"):
        pytest.skip("this kernel does not say for how long a thread ran")
    end, ready, threads = threading.Event(), threading.Barrier(3), {}

    def busy() -> None:
        threads["busy"] = threading.get_native_id()
        ready.wait()
        while not end.is_set():
            sum(range(10_000))

    def asleep() -> None:
        threads["asleep"] = threading.get_native_id()
        ready.wait()
        end.wait()

    for work in (busy, asleep):
        threading.Thread(target=work, daemon=True).start()
    ready.wait()
    watched = {name: Stopwatch(Engines(), thread) for name, thread in threads.items()}
    before = {name: watch._scheduled()[1] for name, watch in watched.items()}
    ran, deadline = dict.fromkeys(watched, 0.0), time.monotonic() + 30.0
    while ran["busy"] < 0.2 and time.monotonic() < deadline:
        time.sleep(0.02)
        ran = {name: watch._scheduled()[1] - before[name] for name, watch in watched.items()}
    state = watched["asleep"]._scheduled()[0]
    end.set()
    assert ran["busy"] >= 0.2
    assert ran["asleep"] < 0.05
    assert state is False

"""A pass that hangs is told from one that waits for a processor."""

from __future__ import annotations

import os
import threading
import time

import pytest

from gps_denied_inference.runtimes import stopwatch as module
from gps_denied_inference.runtimes.stopwatch import LONGEST_STEP, SUSPICIOUS, Stopwatch


class Engines:
    running_since: float | None = None


class Clock:
    """Seconds that pass, and seconds that the watched thread waits for a processor."""

    now = waited = 0.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module.time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(module, "waited", lambda: {"1": clock.waited, "2": 0.0})
    return clock


def look(stopwatch: Stopwatch, clock: Clock, times: int, step: float, waited: float = 0.0) -> float:
    for _ in range(times):
        clock.now += step
        clock.waited += waited
        seconds = stopwatch.seconds()
    return seconds


def test_a_pass_that_runs_is_timed_and_the_next_begins_anew(clock: Clock) -> None:
    engines = Engines()
    stopwatch = Stopwatch(engines)
    assert look(stopwatch, clock, 10, 0.05) == 0.0
    engines.running_since = 1.0
    assert look(stopwatch, clock, 31, 0.05) == pytest.approx(1.5)
    engines.running_since = 2.0
    assert look(stopwatch, clock, 1, 0.05) == 0.0
    assert look(stopwatch, clock, 2, 0.05) == pytest.approx(0.1)


def test_a_stopped_process_and_a_thread_without_processor_are_not_counted(clock: Clock) -> None:
    engines = Engines()
    engines.running_since = 1.0
    stopwatch = Stopwatch(engines)
    look(stopwatch, clock, 1, 0.05)
    assert look(stopwatch, clock, 1, 60.0) == pytest.approx(LONGEST_STEP)
    before = look(stopwatch, clock, 10, 0.05)
    assert before > SUSPICIOUS
    assert look(stopwatch, clock, 100, 0.05, waited=0.05) == pytest.approx(before)
    assert look(stopwatch, clock, 100, 0.05, waited=0.045) == pytest.approx(before + 0.5)
    assert look(stopwatch, clock, 20, 0.05, waited=0.02) == pytest.approx(before + 1.5)


def test_the_kernel_says_how_long_a_thread_waited() -> None:
    """Two busy threads on one processor wait for each other; one that sleeps waits for nobody."""
    if not os.path.exists("/proc/self/schedstat"):
        pytest.skip("this kernel does not say how long a thread waits for a processor")
    waited: dict[str, float] = {}
    begin = threading.Event()

    def run(name: str, work: object) -> None:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        thread = str(threading.get_native_id())
        begin.wait()
        before = module.waited()[thread]
        work()  # type: ignore[operator]
        waited[name] = module.waited()[thread] - before

    def busy() -> None:
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            sum(range(1000))

    threads = [threading.Thread(target=run, args=(n, w)) for n, w in
               (("a", busy), ("b", busy), ("asleep", lambda: time.sleep(1.0)))]  # fmt: skip
    for thread in threads:
        thread.start()
    begin.set()
    for thread in threads:
        thread.join()
    assert waited["asleep"] < 0.2
    assert waited["a"] + waited["b"] > waited["asleep"]

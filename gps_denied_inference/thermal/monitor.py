"""A reader in its own thread, so that nobody who asks for the temperature ever waits for it."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from gps_denied_inference.errors import InvalidParameterError
from gps_denied_inference.thermal.source import ThermalSource
from gps_denied_inference.thermal.state import NAN, ThermalLevel, ThermalState, one_line

# How long stop() waits for a reader that is just finishing; a blocked one is left behind.
_JOIN_TIMEOUT = 0.5


class ThermalMonitor:
    """Reads a source periodically; the newest state is always at hand.

    A reader that raises, or that has not answered for two periods, turns the state to UNKNOWN with
    the reason and the age of the last valid sample; when it answers again, so does the monitor.
    The monitor owns the source: its thread reads it and, after :meth:`stop`, closes it.

    Args:
        source: what is read.
        period: s between reads, 0.02..60.
        clock: s, monotonic; for tests.

    Raises:
        InvalidParameterError: the period is out of bounds.
    """

    def __init__(
        self,
        source: ThermalSource,
        period: float = 1.0,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not (math.isfinite(period) and 0.02 <= period <= 60.0):
            raise InvalidParameterError("thermal period", period, "0.02..60 s")
        self._source = source
        self._period = period
        self._clock = clock
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._fresh = threading.Event()
        self._thread: threading.Thread | None = None
        self._state = ThermalState.unknown("no reading yet", source=source.name)
        self._answered = clock()
        self._sampled = NAN
        self._stamp_ns = 0

    @property
    def source_name(self) -> str:
        """The source's name."""
        return self._source.name

    @property
    def period(self) -> float:
        """Seconds between reads."""
        return self._period

    def start(self) -> None:
        """Start reading. Starting twice is fine; after :meth:`stop` it is refused."""
        with self._lock:
            if self._stop.is_set():
                raise RuntimeError("a stopped ThermalMonitor cannot be started again")
            if self._thread is not None:
                return
            self._answered = self._clock()
            # A daemon: a reader that blocks for ever must not keep the process alive.
            self._thread = threading.Thread(target=self._run, name="thermal-reader", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop reading; returns within half a second even if the reader blocks. Idempotent."""
        self._stop.set()
        thread = self._thread
        if thread is None:
            self._source.close()
        elif thread is not threading.current_thread():
            thread.join(_JOIN_TIMEOUT)

    close = stop

    def __enter__(self) -> ThermalMonitor:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait_fresh(self, timeout: float) -> bool:
        """Wait until a read has ended since the last call; for views, never for frames.

        Args:
            timeout: s.

        Returns:
            False when the time ran out.
        """
        answered = self._fresh.wait(timeout)
        self._fresh.clear()
        return answered

    def latest(self) -> ThermalState:
        """Return the newest state with its age. Never blocks on the reader, never raises."""
        now = self._clock()
        with self._lock:
            state, answered, sampled = self._state, self._answered, self._sampled
            stamp_ns, started = self._stamp_ns, self._thread is not None
        age = max(now - sampled, 0.0)
        if self._stop.is_set() or not started:
            verb = "has been stopped" if self._stop.is_set() else "has not been started"
            return self._unknown(f"the thermal reader {verb}", age, stamp_ns)
        silent = now - answered
        if silent > 2.0 * self._period:
            return self._unknown(
                f"the {self._source.name} reader has not answered for {silent:.1f} s",
                age,
                stamp_ns,
            )
        if state.level is ThermalLevel.UNKNOWN:
            return self._unknown(state.reason, age, stamp_ns, state)
        return state.with_age(age)

    def _unknown(
        self, reason: str, age: float, stamp_ns: int, state: ThermalState | None = None
    ) -> ThermalState:
        if state is not None and state.sensors:
            # Keep what the source did say: which sensors it lists as offline, clocks, power.
            return replace(state, sample_age=age, stamp_ns=stamp_ns)
        return ThermalState.unknown(
            reason, source=self._source.name, sample_age=age, stamp_ns=stamp_ns
        )

    def _run(self) -> None:
        try:
            due = self._clock()
            while not self._stop.is_set():
                self._read_once()
                # A source slower than the period gets a rest too: it must not take a whole core.
                due = max(due + self._period, self._clock() + 0.1 * self._period)
                self._stop.wait(due - self._clock())
        finally:
            # Nobody is left to tell, and the thread must end.
            with contextlib.suppress(BaseException):
                self._source.close()

    def _read_once(self) -> None:
        try:
            state = self._source.read()
            if not isinstance(state, ThermalState):
                raise TypeError(f"read() returned {type(state).__name__}, not a ThermalState")
        except BaseException as error:  # noqa: BLE001 - a source may fail in any way: that is a state
            detail = one_line(str(error)) or "no message"
            state = ThermalState.unknown(
                f"the {self._source.name} reader failed: {type(error).__name__}: {detail}",
                source=self._source.name,
            )
        now = self._clock()
        with self._lock:
            self._state = state
            self._answered = now
            if state.level is not ThermalLevel.UNKNOWN:
                self._sampled = now
                self._stamp_ns = state.stamp_ns
        self._fresh.set()

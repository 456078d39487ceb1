"""Where every frame went and how long it took."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

WINDOW = 512
"""Newest samples that percentiles are taken over."""

LOST = "lost_in_transport"
"""Drop reason of frames that were sent to this node and did not reach it."""
SUPERSEDED = "superseded"
"""Drop reason of frames that a newer one replaced before there was time for them."""
SETTLING = 0.5
"""s from a gap in the sender's numbers until it is known whether the middleware lost the frames."""


@dataclass(frozen=True)
class StageLatency:
    """Latency of one stage over the window, in seconds."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True)
class AccountSnapshot:
    """A consistent copy of the counters.

    ``frames_in == frames_out + sum(drops.values()) + frames in work`` holds in every snapshot.
    """

    frames_in: int
    frames_out: int
    drops: Mapping[str, int]
    rate: float
    time_since_frame: float
    latencies: Mapping[str, StageLatency]

    @property
    def frames_dropped(self) -> int:
        """Sum over all reasons."""
        return sum(self.drops.values())


class FrameAccounting:
    """Thread-safe counters of frames in, out and dropped, and latencies per stage.

    Args:
        clock: monotonic seconds; tests give their own.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._in = 0
        self._out = 0
        self._drops: Counter[str] = Counter()
        self._samples: dict[str, deque[float]] = {}
        self._published: deque[float] = deque(maxlen=WINDOW)
        self._last_in = float("nan")
        self._gaps: deque[tuple[float, int]] = deque()
        self._explained = 0

    def received(self) -> None:
        """Count a frame in."""
        with self._lock:
            self._in += 1
            self._last_in = self._clock()

    def lost(self, count: int) -> None:
        """Count frames that the middleware says were sent here and lost on the way.

        They count as in, so that the books show what the camera sent; they are no sign of life
        from it.
        """
        with self._lock:
            self._in += count
            self._drops[LOST] += count
            self._explained += count

    def skipped(self, count: int) -> None:
        """Count frames that the sender numbered, and that were never taken.

        Those of them that were not lost on the way (see :meth:`lost`, which may be told a little
        later) were replaced by a newer one in the middleware's queue of one place.
        """
        with self._lock:
            self._gaps.append((self._clock(), count))

    def _settle(self, now: float) -> None:
        while self._gaps and now - self._gaps[0][0] >= SETTLING:
            _, count = self._gaps.popleft()
            lost = min(count, self._explained)
            self._explained -= lost
            if count > lost:
                self._in += count - lost
                self._drops[SUPERSEDED] += count - lost

    def answered(self, latencies: Mapping[str, float]) -> None:
        """Count a frame out, with the seconds that each of its stages took."""
        with self._lock:
            self._out += 1
            self._published.append(self._clock())
            for stage, seconds in latencies.items():
                self._samples.setdefault(stage, deque(maxlen=WINDOW)).append(seconds)

    def dropped(self, reason: str) -> None:
        """Count a frame that gets no answer."""
        with self._lock:
            self._drops[reason] += 1

    def snapshot(self) -> AccountSnapshot:
        """Copy the counters and compute the percentiles."""
        with self._lock:
            now = self._clock()
            self._settle(now)
            frames_in, frames_out, drops = self._in, self._out, dict(self._drops)
            samples = {stage: np.fromiter(values, float) for stage, values in self._samples.items()}
            recent = [stamp for stamp in self._published if now - stamp <= 5.0]
            since = now - self._last_in
        latencies = {
            stage: StageLatency(*(float(p) for p in np.percentile(values, (50, 95, 99))))
            for stage, values in samples.items()
        }
        span = now - recent[0] if recent else 0.0
        rate = (len(recent) - 1) / span if len(recent) > 1 and span > 0 else float("nan")
        return AccountSnapshot(frames_in, frames_out, drops, rate, since, latencies)

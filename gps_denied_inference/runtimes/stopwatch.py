"""For how long one and the same forward pass runs, not counting what no fault of it can be."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Protocol

LONGEST_STEP = 0.2
"""s that count at most between two looks: a process that was stopped is not a pass that hangs."""


class Engines(Protocol):
    """Whose forward passes are watched."""

    @property
    def running_since(self) -> float | None:
        """Monotonic s at which the forward pass that runs now began; None = none runs."""
        ...


class Stopwatch:
    """Follows the forward passes of one thread; to be looked at every 50 ms or so.

    Time in which the thread waits for a processor does not count: on a busy computer, a thread of
    low priority may wait for seconds.

    Args:
        engines: that the passes are of.
        thread: native id of the thread that runs them.
    """

    def __init__(self, engines: Engines, thread: int) -> None:
        self._engines = engines
        self._schedule = Path("/proc/self/task", str(thread), "schedstat")
        self._running: float | None = None
        self._seconds = 0.0
        self._last, self._starved = time.monotonic(), self._waited()

    def seconds(self) -> float:
        """Return for how long the pass that runs now has been seen to run; 0 = none runs."""
        now, starved, since = time.monotonic(), self._waited(), self._engines.running_since
        step = min(now - self._last, LONGEST_STEP) - (starved - self._starved)
        self._last, self._starved = now, starved
        same = since is not None and since == self._running
        self._running, self._seconds = since, self._seconds + max(0.0, step) if same else 0.0
        return self._seconds

    def _waited(self) -> float:
        """Return the s that the thread has waited for a processor; 0 where no kernel says."""
        try:
            return int(self._schedule.read_text(encoding="ascii").split()[1]) * 1e-9
        except (OSError, ValueError, IndexError):
            return 0.0

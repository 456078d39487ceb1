"""For how long one and the same forward pass runs, not counting what no fault of it can be."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Protocol

SUSPICIOUS = 0.5
"""s after which is asked whether threads wait for a processor."""
STARVED = 0.8
"""Share of the time that a thread waits from which the process starves; less is any busy day."""
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

    Time in which a thread of this process starves for a processor does not count: on a busy machine
    a thread of low priority may wait for seconds, and so may one that holds what the pass needs to
    come back, as the interpreter's lock.

    Args:
        engines: that the passes are of.
    """

    def __init__(self, engines: Engines) -> None:
        self._engines = engines
        self._running: float | None = None
        self._seconds = 0.0
        self._last = time.monotonic()
        self._waits: dict[str, float] = {}

    def seconds(self) -> float:
        """Return for how long the pass that runs now has been seen to run; 0 = none runs."""
        now, since = time.monotonic(), self._engines.running_since
        step, self._last = min(now - self._last, LONGEST_STEP), now
        same = since is not None and since == self._running
        self._running, seconds = since, self._seconds + step if same else 0.0
        if seconds >= SUSPICIOUS:
            # Only then, since every thread is asked: by far most passes end long before.
            waits = waited()
            starved = max((w - self._waits.get(t, w) for t, w in waits.items()), default=0.0)
            if starved >= STARVED * step:
                seconds = max(self._seconds, seconds - starved)
            self._waits = waits
        else:
            self._waits = {}
        self._seconds = seconds
        return seconds


def waited() -> dict[str, float]:
    """Return the s that each thread has waited for a processor; {} where no kernel says."""
    found = {}
    for schedule in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            text = schedule.read_text(encoding="ascii")
            found[schedule.parent.name] = int(text.split()[1]) * 1e-9
    return found

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

    A thread that could run and gets no processor does not hang: of its time counts what it did
    run. One that sleeps, as in a driver that never answers, is timed by the clock.

    Args:
        engines: that the passes are of.
        thread: native id of the thread that runs them.
    """

    def __init__(self, engines: Engines, thread: int) -> None:
        self._engines = engines
        self._thread = thread
        self._running: float | None = None
        self._seconds = 0.0
        self._last, (_, self._ran) = time.monotonic(), self._scheduled()

    def seconds(self) -> float:
        """Return for how long the pass that runs now has been seen to run; 0 = none runs."""
        now, (runnable, ran), since = (
            time.monotonic(), self._scheduled(), self._engines.running_since,
        )  # fmt: skip
        step = min(now - self._last, LONGEST_STEP)
        if runnable:
            step = min(step, ran - self._ran)
        self._last, self._ran = now, ran
        same = since is not None and since == self._running
        self._running, self._seconds = since, self._seconds + step if same else 0.0
        return self._seconds

    def _scheduled(self) -> tuple[bool, float]:
        return scheduled(self._thread)


def scheduled(thread: int) -> tuple[bool, float]:
    """Return whether a thread, by its native id, could run, and for how long it has run, s."""
    folder = Path("/proc/self/task", str(thread))
    try:
        state = (folder / "stat").read_text("ascii", "replace").rpartition(")")[2].split()
        ran = int((folder / "schedstat").read_text("ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return False, 0.0  # no kernel says: the clock alone
    return state[0] == "R", ran * 1e-9

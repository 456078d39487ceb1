"""Frames of several cameras brought together by their instant."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class InstantSlots(Generic[Item]):
    """A place for one frame of each camera, where the newest wins; one worker takes what waits.

    The first frame of an instant waits for those of the other cameras, at most for the tolerance,
    and only for cameras that keep step: one that dropped out, or sees at other times, keeps nobody
    waiting until its frames fall together with the others' again.

    Args:
        count: cameras.
        tolerance: s, between stamps of one instant, and the longest wait.
    """

    def __init__(self, count: int, tolerance: float) -> None:
        self._condition = threading.Condition()
        self._tolerance = tolerance
        self._items: dict[int, tuple[int, Item]] = {}
        self._keeps_step = [count > 1] * count
        self._last: list[int | None] = [None] * count
        self._closed = False

    def put(self, camera: int, stamp_ns: int, item: Item) -> Item | None:
        """Store ``item`` and return the one of this camera that it displaces, if any.

        After :meth:`close`, ``item`` itself is returned: it will not be taken.
        """
        with self._condition:
            if self._closed:
                return item
            displaced = self._items.get(camera)
            self._items[camera] = (stamp_ns, item)
            self._condition.notify()
            return None if displaced is None else displaced[1]

    def take(self) -> dict[int, Item] | None:
        """Wait for frames and return all that are there, by camera; None once it is closed."""
        with self._condition:
            self._condition.wait_for(lambda: self._items or self._closed)
            self._condition.wait_for(lambda: self._closed or not self._awaited(), self._tolerance)
            if self._closed:
                return None
            items, self._items = self._items, {}
            self._note({camera: stamp_ns for camera, (stamp_ns, _) in items.items()})
            return {camera: items[camera][1] for camera in sorted(items)}

    def close(self) -> dict[int, Item]:
        """Wake the worker for the last time and return the frames that nobody took, by camera."""
        with self._condition:
            self._closed = True
            items, self._items = self._items, {}
            self._condition.notify_all()
            return {camera: item for camera, (_, item) in items.items()}

    def _awaited(self) -> bool:
        return any(
            keeps_step and camera not in self._items
            for camera, keeps_step in enumerate(self._keeps_step)
        )

    def _note(self, stamps: dict[int, int]) -> None:
        """Note who came together: a camera keeps step whose frame is of another's instant."""
        for camera in range(len(self._last)):
            stamp = stamps.get(camera)
            others = (
                other_stamp
                for other, known in enumerate(self._last)
                if other != camera
                for other_stamp in (known, stamps.get(other))
                if other_stamp is not None
            )
            self._keeps_step[camera] = stamp is not None and any(
                same_instant(stamp, other, self._tolerance) for other in others
            )
        for camera, stamp in stamps.items():
            self._last[camera] = stamp


class RateLimiter:
    """Lets frames through at no more than a given mean rate."""

    def __init__(self) -> None:
        self._due = 0.0

    def admits(self, rate: float, now: float) -> bool:
        """True if a frame at ``now`` (monotonic s) keeps the rate (Hz); 0 = no limit."""
        if rate <= 0.0:
            return True
        # Up to one period of credit, so that a camera a little out of step with the limit is
        # not held to a divisor of its own rate.
        if now < self._due:
            return False
        self.charge(rate, now)
        return True

    def charge(self, rate: float, now: float) -> None:
        """Count a frame that is let through whatever the rate."""
        period = 1.0 / rate
        self._due = max(self._due, now - period) + period


class InstantLimiter:
    """A rate limit for each camera that lets frames of one instant through together, or none.

    Args:
        count: cameras.
        tolerance: s, between stamps of one instant.
        clock: monotonic seconds; tests give their own.
    """

    def __init__(
        self, count: int, tolerance: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._lock = threading.Lock()
        self._tolerance = tolerance
        self._clock = clock
        self._limiters = [RateLimiter() for _ in range(count)]
        self._verdicts: list[tuple[int, bool] | None] = [None] * count

    def admits(self, camera: int, stamp_ns: int, rate: float) -> bool:
        """True if a frame keeps the rate (Hz, of each camera); 0 = no limit."""
        if rate <= 0.0:
            return True
        with self._lock:
            now, limiter = self._clock(), self._limiters[camera]
            verdict = self._of_this_instant(camera, stamp_ns)
            if verdict is None:
                verdict = limiter.admits(rate, now)
            elif verdict:
                limiter.charge(rate, now)
            self._verdicts[camera] = (stamp_ns, verdict)
            return verdict

    def _of_this_instant(self, camera: int, stamp_ns: int) -> bool | None:
        for other, known in enumerate(self._verdicts):
            if other == camera or known is None or stamp_ns == 0:
                continue
            if same_instant(stamp_ns, known[0], self._tolerance):
                return known[1]
        return None


def same_instant(first_ns: int, second_ns: int, tolerance: float) -> bool:
    """Return whether two stamps (ns) are at most ``tolerance`` s apart."""
    return abs(first_ns - second_ns) <= tolerance * 1e9

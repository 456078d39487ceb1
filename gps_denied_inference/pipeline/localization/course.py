"""The flight while it is flown: motion comes with every frame, fixes come late.

A fix takes longer than a frame. The filter stands at the last frame that was searched; the motions
since then are kept, and a copy of the filter that has gone through them says where the flight is
now. Safe to use from two threads, one that sees motion and one that finds fixes.

Where stamps go back by more than a frame that is late, the camera's clock was set or its bag began
again: the flight begins anew, and a search of a frame from before tells the new one nothing.
"""

from __future__ import annotations

import copy
import threading
from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gps_denied_inference.pipeline.localization.fix import Attempt
from gps_denied_inference.pipeline.localization.flight import FlightEstimate, FlightFilter
from gps_denied_inference.pipeline.localization.motion import Motion
from gps_denied_inference.pipeline.localization.prior import Prior

MOST_PENDING = 600
"""Motions kept at most: twenty seconds at 30 Hz; older ones are forgotten."""
LATE_NS = 1_000_000_000
"""ns by which a frame may be older than the one before it and of the same flight."""
MOST_POINTS = 300
"""Tracks that tell the motion of one frame at most."""


@dataclass(frozen=True, eq=False)
class Seen:
    """The tracks of one frame.

    Attributes:
        stamp_ns: ns.
        ids: (N,) of the tracks, ascending.
        points: (N, 2) on the normalised image plane, x right, y down.
    """

    stamp_ns: int
    ids: npt.NDArray[np.uint64]
    points: npt.NDArray[np.float64]

    @classmethod
    def of(
        cls,
        stamp_ns: int,
        ids: npt.NDArray[np.uint64],
        points: npt.NDArray[np.floating],
    ) -> Seen:
        """Keep the tracks in order of their ids."""
        order = np.argsort(ids, kind="stable")
        return cls(stamp_ns, ids[order], np.asarray(points, np.float64)[order])

    def motion_since(self, before: Seen) -> Motion | None:
        """Return the motion between two frames that share tracks; None where it is not seen."""
        _, ours, theirs = np.intersect1d(
            self.ids, before.ids, assume_unique=True, return_indices=True
        )
        if len(ours) > MOST_POINTS:
            chosen = np.linspace(0, len(ours) - 1, MOST_POINTS).astype(int)
            ours, theirs = ours[chosen], theirs[chosen]
        return Motion.between(before.points[theirs], self.points[ours])


@dataclass(frozen=True)
class _Step:
    stamp_ns: int
    motion: Motion | None
    seconds: float


class Course:
    """See the module.

    Args:
        width: of the frame on the normalised image plane.

    Attributes:
        restarts: times that stamps went back, and the flight began anew.
    """

    def __init__(self, width: float) -> None:
        self.restarts = 0
        self._lock = threading.Lock()
        self._filter = FlightFilter(width)
        self._now = FlightFilter(width)
        self._pending: deque[_Step] = deque(maxlen=MOST_PENDING)
        self._before: Seen | None = None
        self._is_of_before = False

    def moved(self, seen: Seen) -> tuple[FlightEstimate, Motion | None, float]:
        """Go on to a frame; return where the flight is then, the motion, and the s it took.

        A frame that is not newer than the one before is passed over: NaN s. One that is older by
        more than :data:`LATE_NS` begins another flight.
        """
        with self._lock:
            before = self._before
            if before is not None and seen.stamp_ns < before.stamp_ns - LATE_NS:
                self._restart()
                before = None
            elif before is not None and seen.stamp_ns <= before.stamp_ns:
                return self._now.estimate, None, float("nan")
            self._before = seen
            if before is None:
                return self._now.estimate, None, 0.0
        motion = seen.motion_since(before)
        seconds = (seen.stamp_ns - before.stamp_ns) * 1e-9
        with self._lock:
            self._pending.append(_Step(seen.stamp_ns, motion, seconds))
            self._now.move(motion, seconds)
            return self._now.estimate, motion, seconds

    def _restart(self) -> None:
        self.restarts += 1
        self._filter.restart()
        self._now = copy.deepcopy(self._filter)
        self._pending.clear()
        self._is_of_before = True

    def search_from(self, stamp_ns: int, base: Prior) -> Prior:
        """Bring the filter to the frame of a stamp; return where to search it."""
        with self._lock:
            newest = self._before.stamp_ns if self._before is not None else stamp_ns
            self._is_of_before = stamp_ns > newest
            if self._is_of_before:
                return base
            while self._pending and self._pending[0].stamp_ns <= stamp_ns:
                step = self._pending.popleft()
                self._filter.move(step.motion, step.seconds)
            return self._filter.search(base)

    def found(self, attempt: Attempt) -> FlightEstimate:
        """Weigh what the search gave; return where the flight was at that frame."""
        with self._lock:
            if self._is_of_before:
                return self._filter.estimate
            self._filter.update(attempt)
            self._now = copy.deepcopy(self._filter)
            for step in self._pending:
                self._now.move(step.motion, step.seconds)
            return self._filter.estimate

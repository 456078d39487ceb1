"""Whether a camera's stamps are what an estimator needs: its own, rising, evenly spaced."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

WINDOW = 64
"""Newest intervals that period and jitter are taken over."""
KNOWN_FROM = 8
"""Intervals from which the period is known."""
GAP = 1.5
"""Periods; a longer interval is a gap."""
_SECOND = 1e-9


@dataclass(frozen=True)
class StampSummary:
    """What the stamps of one camera were like.

    Attributes:
        zero, repeated, backward: frames whose stamp is zero, that of the frame before, an earlier
            one.
        gaps: intervals too long by a frame or more that nothing on the way here explains.
        missing: frames that would fill them.
        period: s, median of the newest intervals; NaN = too few.
        jitter: s, standard deviation from it, gaps left out; NaN = too few.
    """

    zero: int = 0
    repeated: int = 0
    backward: int = 0
    gaps: int = 0
    missing: int = 0
    period: float = float("nan")
    jitter: float = float("nan")


class StampWatch:
    """Follows the stamps of one camera's frames. Not thread-safe."""

    def __init__(self) -> None:
        self._last: int | None = None
        self._intervals: deque[float] = deque(maxlen=WINDOW)
        self._zero = self._repeated = self._backward = self._gaps = self._missing = 0

    def received(self, stamp_ns: int, skipped: int = 0) -> None:
        """Note the stamp of a frame.

        Args:
            stamp_ns: the frame's.
            skipped: frames that were sent between the one before and this, and were never taken.
        """
        last, self._last = self._last, stamp_ns
        if stamp_ns == 0:
            self._zero += 1
            return
        if last is None or last == 0:
            return
        if stamp_ns <= last:
            self._repeated += stamp_ns == last
            self._backward += stamp_ns < last
            return
        interval = (stamp_ns - last) * _SECOND
        period = self._period()
        # After a pause of the whole sequence the frames between are nobody's to count.
        absent = round(interval / period) - 1 - skipped if period > 0.0 else 0
        if absent > 0 and interval > GAP * period * (1 + skipped):
            self._gaps += 1
            self._missing += absent
        self._intervals.append(interval / (1 + skipped))

    def _period(self) -> float:
        known = len(self._intervals) >= KNOWN_FROM
        return float(np.median(self._intervals)) if known else float("nan")

    def summary(self) -> StampSummary:
        """Return what is known by now."""
        period = self._period()
        regular = np.array([step for step in self._intervals if step <= GAP * period])
        jitter = float(np.sqrt(np.square(regular - period).mean())) if len(regular) else np.nan
        return StampSummary(
            zero=self._zero,
            repeated=self._repeated,
            backward=self._backward,
            gaps=self._gaps,
            missing=self._missing,
            period=period,
            jitter=jitter,
        )

"""Whether a fix may be sent to the autopilot. Pure: no clock, no socket, no ROS.

::

    STOPPED --activate--> WAITING --first fix accepted--> ACTIVE
       ^                    ^  ^                             |
       |                    |  +---- link gone, GPS back ----+
    deactivate              |                                | no fix accepted for lost_after
                            +---------- LOST <---------------+
                                         |
                                         +--- fix accepted ---> ACTIVE
"""

from __future__ import annotations

import enum
import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from gps_denied_inference.autopilot.fix import AutopilotState, Fix
from gps_denied_inference.autopilot.frames import horizontal_sigma
from gps_denied_inference.errors import InvalidParameterError

EARTH_RADIUS = 6_371_000.0
"""m."""


class LinkState(enum.Enum):
    """What the link does with fixes."""

    STOPPED = "stopped"
    WAITING = "waiting"
    ACTIVE = "active"
    LOST = "lost"


@dataclass(frozen=True)
class PolicyLimits:
    """Bounds of what is sent.

    Attributes:
        max_age: s between exposure and now.
        max_sigma: m, largest standard deviation of a fix.
        min_sigma: m, floor of what is reported: no fix is better than the map.
        max_rate: Hz, of positions.
        max_speed: m/s, of the aircraft, for the check against the last fix sent.
        gate: standard deviations that two fixes may lie apart beyond the flight between them.
        link_timeout: s without a packet after which the autopilot counts as gone.
        lost_after: s without an accepted fix after which the position counts as lost.
        stop_on_gps: send nothing while the autopilot's GPS is in use.
    """

    max_age: float = 1.0
    max_sigma: float = 50.0
    min_sigma: float = 0.5
    max_rate: float = 10.0
    max_speed: float = 40.0
    gate: float = 5.0
    link_timeout: float = 3.0
    lost_after: float = 5.0
    stop_on_gps: bool = False

    def __post_init__(self) -> None:
        for name in ("max_age", "max_sigma", "min_sigma", "max_rate", "max_speed", "gate",
                     "link_timeout", "lost_after"):  # fmt: skip
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0.0):
                raise InvalidParameterError(name, value, "a finite number > 0")
        if self.min_sigma > self.max_sigma:
            raise InvalidParameterError(
                "min_sigma", self.min_sigma, f"at most max_sigma = {self.max_sigma:g} m"
            )


@dataclass(frozen=True)
class Verdict:
    """What becomes of one fix.

    Attributes:
        send: it goes to the autopilot.
        reason: why it does not, in one word of ``REASONS``; empty where it does.
        sigma: m, horizontal standard deviation to report; NaN where nothing is sent.
        is_reset: it follows a jump that the localizer announced.
    """

    send: bool
    reason: str = ""
    sigma: float = math.nan
    is_reset: bool = False


REASONS = {
    "stopped": "the link is not active",
    "no_autopilot": "no packet has come from the autopilot within link_timeout",
    "gps_in_use": "the autopilot's GPS is in use, and stop_on_gps is true or it is ArduPilot, "
    "which takes no other position then",
    "yaw_not_aligned": "the autopilot's estimator has no attitude yet",
    "not_finite": "latitude, longitude or covariance is NaN or infinite",
    "off_earth": "latitude beyond the poles, or longitude beyond 360 degrees",
    "no_covariance": "the covariance is zero, negative or not a covariance",
    "stale": "older than max_age",
    "from_the_future": "its stamp lies ahead of the clock",
    "out_of_order": "not newer than the last fix sent",
    "uncertain": "its standard deviation is above max_sigma",
    "rate": "max_rate would be exceeded",
    "inconsistent": "too far from the last fix sent, and no reset was announced",
}
"""Every reason for not sending a fix, and what it means."""

FUTURE_TOLERANCE = 0.05
"""s that a stamp may lie ahead of the clock: clocks of one machine agree better than this."""


class FixPolicy:
    """Decides over each fix, and knows what state the link is in.

    Args:
        limits: the bounds.

    Attributes:
        state: see the module.
        counts: fixes by what became of them: ``"sent"`` or a name of ``REASONS``.
        resets: jumps that were passed on.
    """

    def __init__(self, limits: PolicyLimits) -> None:
        self.limits = limits
        self.state = LinkState.STOPPED
        self.counts: Counter[str] = Counter()
        self.resets = 0
        self._last: Fix | None = None
        self._last_sent_ns: int | None = None

    def start(self) -> None:
        """Begin to consider fixes."""
        self.state = LinkState.WAITING
        self._last = self._last_sent_ns = None

    def stop(self) -> None:
        """Send nothing any more."""
        self.state = LinkState.STOPPED

    def consider(self, fix: Fix, now_ns: int, autopilot: AutopilotState, heard: float) -> Verdict:
        """Decide over a fix.

        Args:
            fix: as it came.
            now_ns: ROS time, ns.
            autopilot: its newest state.
            heard: s since its last packet; infinite = never.
        """
        reason = self._refusal(fix, now_ns, autopilot, heard)
        if reason:
            self.counts[reason] += 1
            return Verdict(False, reason)
        is_reset = self._announces_reset(fix)
        self.resets += is_reset
        self.counts["sent"] += 1
        self.state = LinkState.ACTIVE
        self._last, self._last_sent_ns = fix, now_ns
        sigma = max(horizontal_sigma(fix.covariance), self.limits.min_sigma)
        return Verdict(True, "", sigma, is_reset)

    def tick(self, now_ns: int, autopilot: AutopilotState, heard: float) -> LinkState:
        """Let time pass; return the state."""
        if self.state in (LinkState.STOPPED, LinkState.WAITING):
            return self.state
        if heard > self.limits.link_timeout or self._is_blocked_by_gps(autopilot):
            self.state = LinkState.WAITING
        elif self.state is LinkState.ACTIVE and self._is_overdue(now_ns):
            self.state = LinkState.LOST
        return self.state

    def _refusal(self, fix: Fix, now_ns: int, autopilot: AutopilotState, heard: float) -> str:
        if self.state is LinkState.STOPPED:
            return "stopped"
        if heard > self.limits.link_timeout:
            return "no_autopilot"
        if self._is_blocked_by_gps(autopilot):
            return "gps_in_use"
        if not autopilot.yaw_aligned:
            return "yaw_not_aligned"
        if not _is_finite(fix):
            return "not_finite"
        if not _is_on_earth(fix):
            return "off_earth"
        if not _has_covariance(fix):
            return "no_covariance"
        age = (now_ns - fix.stamp_ns) * 1e-9
        if age > self.limits.max_age:
            return "stale"
        if age < -FUTURE_TOLERANCE:
            return "from_the_future"
        if self._last is not None and fix.stamp_ns <= self._last.stamp_ns:
            return "out_of_order"
        if horizontal_sigma(fix.covariance) > self.limits.max_sigma:
            return "uncertain"
        if self._exceeds_rate(now_ns):
            return "rate"
        if not self._announces_reset(fix) and not self._is_consistent(fix):
            return "inconsistent"
        return ""

    def _announces_reset(self, fix: Fix) -> bool:
        """The one condition under which a position may jump."""
        return self._last is not None and fix.reset_counter != self._last.reset_counter

    def _is_consistent(self, fix: Fix) -> bool:
        """Could the aircraft have flown here from the last fix that was sent?"""
        last = self._last
        if last is None:
            return True
        between = (fix.stamp_ns - last.stamp_ns) * 1e-9
        spread = math.hypot(horizontal_sigma(fix.covariance), horizontal_sigma(last.covariance))
        reach = self.limits.max_speed * between + self.limits.gate * spread
        return distance(fix.latitude, fix.longitude, last.latitude, last.longitude) <= reach

    def _is_blocked_by_gps(self, autopilot: AutopilotState) -> bool:
        refuses = autopilot.kind == "ardupilot" or self.limits.stop_on_gps
        return refuses and autopilot.gps_in_use

    def _exceeds_rate(self, now_ns: int) -> bool:
        if self._last_sent_ns is None:
            return False
        return (now_ns - self._last_sent_ns) * 1e-9 < 1.0 / self.limits.max_rate

    def _is_overdue(self, now_ns: int) -> bool:
        last = self._last_sent_ns
        return last is not None and (now_ns - last) * 1e-9 > self.limits.lost_after


def distance(latitude: float, longitude: float, latitude2: float, longitude2: float) -> float:
    """Return the distance of two places on a sphere, m."""
    a, b = math.radians(latitude), math.radians(latitude2)
    half = 0.5 * math.radians(longitude2 - longitude)
    chord = math.sin(0.5 * (b - a)) ** 2 + math.cos(a) * math.cos(b) * math.sin(half) ** 2
    return 2.0 * EARTH_RADIUS * math.asin(math.sqrt(min(1.0, chord)))


def _is_finite(fix: Fix) -> bool:
    values = (fix.latitude, fix.longitude, *fix.covariance)
    return len(fix.covariance) == 9 and all(math.isfinite(value) for value in values)


def _is_on_earth(fix: Fix) -> bool:
    return abs(fix.latitude) <= 90.0 and abs(fix.longitude) <= 360.0


def _has_covariance(fix: Fix) -> bool:
    block = np.asarray(fix.covariance, np.float64).reshape(3, 3)[:2, :2]
    if not np.allclose(block, block.T, rtol=1e-6, atol=1e-9):
        return False
    return bool(np.linalg.eigvalsh(block)[0] > 0.0)

"""What the node does at each level. Pure: time comes in as an argument.

========== ================ ============== ==================================================
level      frame-rate limit keypoint limit activation
========== ================ ============== ==================================================
UNKNOWN    as before        as before      allowed; a reading that is lost never relaxes a limit
NOMINAL    none             none           allowed
WARM       20 Hz            none           allowed
THROTTLING 10 Hz            none           allowed
CRITICAL   2 Hz             none           refused where ``refuse_when_critical``
========== ================ ============== ==================================================

The limits are parameters; these are the defaults. Keypoints are limited only where the node has an
engine with fewer of them prepared; its number is then given here. Two changes of the commanded
level are never closer than ``dwell``; a level is left downwards only after the reading has been
below it, without a break, for ``dwell``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from gps_denied_inference.errors import InvalidParameterError
from gps_denied_inference.thermal.state import NAN, ThermalLevel, ThermalState

MIN_DWELL, MAX_DWELL = 0.5, 600.0
"""s."""
MAX_RATE = 1000.0
"""Hz."""
_MAX_KEYPOINTS = 1_000_000


@dataclass(frozen=True)
class PolicyConfig:
    """Parameters of the closed loop.

    Attributes:
        enabled: False = the level is reported and nothing is commanded.
        dwell: s, :data:`MIN_DWELL` to :data:`MAX_DWELL`.
        warm_rate, throttling_rate, critical_rate: Hz at that level, 0 = no limit.
        warm_keypoints, throttling_keypoints, critical_keypoints: at that level, 0 = no limit.
        refuse_when_critical: a node that is CRITICAL may not be activated.

    A hotter level's limit is never looser than a cooler one's.

    Raises:
        InvalidParameterError: a value is out of bounds or looser than at a cooler level.
    """

    enabled: bool = True
    dwell: float = 5.0
    warm_rate: float = 20.0
    throttling_rate: float = 10.0
    critical_rate: float = 2.0
    warm_keypoints: int = 0
    throttling_keypoints: int = 0
    critical_keypoints: int = 0
    refuse_when_critical: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.dwell) and MIN_DWELL <= self.dwell <= MAX_DWELL):
            raise InvalidParameterError(
                "thermal_dwell", self.dwell, f"{MIN_DWELL:g}..{MAX_DWELL:g} s"
            )
        for what, bound in (("rate", MAX_RATE), ("keypoints", _MAX_KEYPOINTS)):
            looser, cooler = math.inf, ""
            for level in ("warm", "throttling", "critical"):
                value = getattr(self, f"{level}_{what}")
                name = f"thermal_{level}_rate" if what == "rate" else "thermal_reduced_keypoints"
                if not 0 <= value <= bound:
                    raise InvalidParameterError(name, value, f"0 (no limit) .. {bound:g}")
                limit = value if value > 0 else math.inf
                if limit > looser:
                    raise InvalidParameterError(
                        name,
                        value,
                        f"above 0 and at most {cooler} = {looser:g}, the limit of a cooler level; "
                        "0 means none, and can be given where the cooler levels have none",
                    )
                looser, cooler = limit, name if limit < math.inf else cooler

    def limits(self, level: ThermalLevel) -> tuple[float, int]:
        """Return (frame rate in Hz or NaN, keypoints or 0) that ``level`` commands."""
        rate, keypoints = {
            ThermalLevel.WARM: (self.warm_rate, self.warm_keypoints),
            ThermalLevel.THROTTLING: (self.throttling_rate, self.throttling_keypoints),
            ThermalLevel.CRITICAL: (self.critical_rate, self.critical_keypoints),
        }.get(level, (NAN, 0))
        return (rate if rate > 0 else NAN), keypoints


@dataclass(frozen=True)
class ThermalAction:
    """What is commanded now.

    Attributes:
        frame_rate_limit: Hz, NaN = no limit.
        keypoint_limit: 0 = no limit.
        may_activate: False = ``on_activate`` must refuse.
        description: what is commanded and why, one line; empty = nothing is commanded.
        level: the level acted upon; UNKNOWN = there never was a reading.
    """

    frame_rate_limit: float = NAN
    keypoint_limit: int = 0
    may_activate: bool = True
    description: str = ""
    level: ThermalLevel = ThermalLevel.UNKNOWN

    def written_into(self, state: ThermalState, enabled: bool = True) -> ThermalState:
        """Return ``state`` with this action in its policy fields."""
        return replace(
            state,
            policy_enabled=enabled,
            frame_rate_limit=self.frame_rate_limit,
            keypoint_limit=self.keypoint_limit,
            action=self.description,
        )


class ThermalPolicy:
    """Level in, action out, with dwell. Not thread-safe: one caller at a time."""

    def __init__(self, config: PolicyConfig | None = None) -> None:
        self.config = config or PolicyConfig()
        self._level = ThermalLevel.UNKNOWN
        self._changed: float | None = None
        self._below_since: float | None = None
        self._below_most = ThermalLevel.UNKNOWN
        self._now = -math.inf

    @property
    def level(self) -> ThermalLevel:
        """The level acted upon; UNKNOWN = there never was a reading."""
        return self._level

    def update(self, state: ThermalState, now: float) -> ThermalAction:
        """Take a state in and say what holds from now on. Never raises.

        Args:
            state: the newest thermal state.
            now: s, monotonic; a time before the last one counts as the last one.
        """
        if not self.config.enabled:
            return ThermalAction(level=state.level)
        if math.isfinite(now):
            self._now = max(self._now, now)
        if math.isfinite(self._now):
            self._follow(state.level, self._now)
        return self._action(state)

    def _follow(self, level: ThermalLevel, now: float) -> None:
        if level is ThermalLevel.UNKNOWN:
            # Silence is no proof of cooling: the count starts anew after it.
            self._below_since = None
        elif self._level is ThermalLevel.UNKNOWN:
            # The first reading sets the level; from here on every change keeps the dwell.
            self._level = level
            if level is not ThermalLevel.NOMINAL:
                self._changed = now
        elif level > self._level:
            self._below_since = None
            if self._dwelt(now):
                self._change(level, now)
        elif level < self._level:
            if self._below_since is None:
                self._below_since, self._below_most = now, level
            self._below_most = max(self._below_most, level)
            if now - self._below_since >= self.config.dwell and self._dwelt(now):
                self._change(self._below_most, now)
        else:
            self._below_since = None

    def _dwelt(self, now: float) -> bool:
        return self._changed is None or now - self._changed >= self.config.dwell

    def _change(self, level: ThermalLevel, now: float) -> None:
        self._level, self._changed, self._below_since = level, now, None

    def _action(self, state: ThermalState) -> ThermalAction:
        rate, keypoints = self.config.limits(self._level)
        critical = ThermalLevel.CRITICAL in (self._level, state.level)
        refuse = self.config.refuse_when_critical and critical
        orders = []
        if not math.isnan(rate):
            orders.append(f"frame rate at most {rate:g} Hz")
        if keypoints:
            orders.append(f"at most {keypoints} keypoints")
        if refuse:
            orders.append("activation refused")
        description = ""
        if orders:
            description = f"{', '.join(orders)}: {self._why(state)}"
        return ThermalAction(rate, keypoints, not refuse, description, self._level)

    def _why(self, state: ThermalState) -> str:
        if state.level is self._level:
            return f"{state.level.name}, {state.reason}"
        if state.level is ThermalLevel.UNKNOWN:
            return f"{self._level.name} held while UNKNOWN, {state.reason}"
        return (
            f"{self._level.name} held for at least {self.config.dwell:g} s, "
            f"now {state.level.name}, {state.reason}"
        )

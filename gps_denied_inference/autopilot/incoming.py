"""What the autopilot says of itself: attitude, position, heights, GPS and estimator."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from gps_denied_inference.autopilot.fix import AutopilotKind, AutopilotState
from gps_denied_inference.autopilot.frames import attitude_to_ros, quaternion_of_euler
from gps_denied_inference.errors import InvalidParameterError

RESTART_MS = 2_000
"""The autopilot's clock may be seen going back by less than this when packets change places."""
SILENT_POSITION_SIGMA = 100.0
"""m, of a position by a GPS that does not say how good it is."""
_KINDS: dict[int, AutopilotKind] = {3: "ardupilot", 12: "px4"}
_ARMED = 128
_NOT_AUTOPILOTS = frozenset({6, 18, 26, 27, 30})  # MAV_TYPE: GCS, onboard, gimbal, ADS-B, camera
_ATTITUDE, _POSITION_ABSOLUTE, _CONSTANT_POSITION = 1, 16, 128
_GPS_UNKNOWN_SIGMA = 0
_DOWN = 25  # MAV_SENSOR_ROTATION_PITCH_270
_FIX_3D = 3


class Telemetry:
    """The newest :class:`AutopilotState`, made of the packets that came.

    Attributes:
        state: see there.
        boot_ms: ms since the autopilot's start, of the newest packet that said so.
    """

    def __init__(self) -> None:
        self.state = AutopilotState()
        self.boot_ms: int | None = None
        self._estimator_absolute = False
        self._takers: dict[str, Callable[[Any], dict[str, Any]]] = {
            "HEARTBEAT": self._heartbeat,
            "ATTITUDE": self._attitude,
            "ATTITUDE_QUATERNION": self._attitude_quaternion,
            "GLOBAL_POSITION_INT": self._global_position,
            "GPS_RAW_INT": self._gps,
            "ALTITUDE": self._altitude,
            "DISTANCE_SENSOR": self._distance,
            "TERRAIN_REPORT": self._terrain,
            "ESTIMATOR_STATUS": self._estimator,
            "EKF_STATUS_REPORT": self._ekf,
            "COMMAND_ACK": self._answer,
        }

    def take(self, message: Any, now_ns: int) -> bool:
        """Take a packet; return True where the autopilot has started anew since the last.

        Args:
            message: as pymavlink parsed it.
            now_ns: monotonic, ns.
        """
        changes: dict[str, Any] = {"heard_ns": now_ns}
        restarted = self._restarted(getattr(message, "time_boot_ms", None))
        if restarted:
            # Nothing of before holds; what it is stays.
            kept = self.state
            self.state = AutopilotState(kind=kept.kind, restarts=kept.restarts + 1)
            self._estimator_absolute = False
        taker = self._takers.get(message.get_type())
        if taker is not None:
            changes |= taker(message)
            if changes.get("gps_fix_type", 0) >= _FIX_3D:
                changes["gps_seen_ns"] = now_ns
        self.state = dataclasses.replace(self.state, **changes)
        in_use = self._estimator_absolute and self.state.gps_fix_type >= _FIX_3D
        if in_use != self.state.gps_in_use:
            self.state = dataclasses.replace(self.state, gps_in_use=in_use)
        return restarted

    def knows(self, kind: str) -> bool:
        """Tell whether packets of this type say something of the autopilot."""
        return kind in self._takers

    def _restarted(self, boot_ms: int | None) -> bool:
        if boot_ms is None:
            return False
        before, self.boot_ms = self.boot_ms, boot_ms
        return before is not None and boot_ms + RESTART_MS < before

    def _heartbeat(self, message: Any) -> dict[str, Any]:
        if message.type in _NOT_AUTOPILOTS:
            return {}
        kind: AutopilotKind = _KINDS.get(message.autopilot, "other")
        return {"kind": kind, "armed": bool(message.base_mode & _ARMED)}

    def _attitude(self, message: Any) -> dict[str, Any]:
        wxyz = quaternion_of_euler(message.roll, message.pitch, message.yaw)
        return _orientation(wxyz)

    def _attitude_quaternion(self, message: Any) -> dict[str, Any]:
        return _orientation((message.q1, message.q2, message.q3, message.q4))

    def _global_position(self, message: Any) -> dict[str, Any]:
        if message.lat == 0 and message.lon == 0:
            return {}  # what autopilots send while they know no place
        return {
            "latitude": message.lat * 1e-7,
            "longitude": message.lon * 1e-7,
            "altitude_amsl": message.alt * 1e-3,
            "height_above_home": message.relative_alt * 1e-3,
        }

    def _gps(self, message: Any) -> dict[str, Any]:
        known = getattr(message, "h_acc", 0) > _GPS_UNKNOWN_SIGMA
        sigma = message.h_acc * 1e-3 if known else math.nan
        return {"gps_fix_type": message.fix_type, "gps_sigma": sigma}

    def _altitude(self, message: Any) -> dict[str, Any]:
        found = {}
        if math.isfinite(message.altitude_relative):
            found["height_above_home"] = message.altitude_relative
        if math.isfinite(message.bottom_clearance) and message.bottom_clearance > 0.0:
            found["height_above_ground"] = message.bottom_clearance
        return found

    def _distance(self, message: Any) -> dict[str, Any]:
        within = message.min_distance < message.current_distance < message.max_distance
        if message.orientation != _DOWN or not within:
            return {}
        return {"height_above_ground": message.current_distance * 1e-2}

    def _terrain(self, message: Any) -> dict[str, Any]:
        if message.loaded == 0 or not math.isfinite(message.current_height):
            return {}
        return {"height_above_ground": message.current_height}

    def _estimator(self, message: Any) -> dict[str, Any]:
        sigma = message.pos_horiz_accuracy
        return {
            **self._flags(message.flags),
            "position_sigma": sigma if math.isfinite(sigma) and sigma > 0.0 else math.nan,
        }

    def _ekf(self, message: Any) -> dict[str, Any]:
        return self._flags(message.flags)

    def _flags(self, flags: int) -> dict[str, Any]:
        absolute = bool(flags & _POSITION_ABSOLUTE) and not flags & _CONSTANT_POSITION
        self._estimator_absolute = absolute
        return {"yaw_aligned": bool(flags & _ATTITUDE)}

    def _answer(self, message: Any) -> dict[str, Any]:
        results = dict(self.state.command_results)
        results[message.result] = results.get(message.result, 0) + 1
        return {"command_results": results}


def position_sigma(state: AutopilotState, now_ns: int, max_speed: float) -> float:
    """Return how uncertain the autopilot's own position is, m; NaN where nothing tells.

    Its estimator's word comes first, then its GPS's while that has a position. One that has lost
    GPS and says nothing may be as far from its last place as it can have flown since.

    Args:
        state: of the autopilot.
        now_ns: monotonic, ns.
        max_speed: of the aircraft over ground, m/s.
    """
    if math.isfinite(state.position_sigma):
        return state.position_sigma
    if state.gps_seen_ns == 0:
        return math.nan
    if state.gps_fix_type >= _FIX_3D:
        return state.gps_sigma if math.isfinite(state.gps_sigma) else SILENT_POSITION_SIGMA
    since = max(0, now_ns - state.gps_seen_ns) * 1e-9
    return SILENT_POSITION_SIGMA + max_speed * since


def _orientation(wxyz: tuple[float, float, float, float]) -> dict[str, Any]:
    try:
        return {"orientation": attitude_to_ros(wxyz)}
    except InvalidParameterError:
        return {}  # not finite: an estimator that has no attitude yet

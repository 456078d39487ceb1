"""A position on the map, as the link takes it, and what the link knows of the autopilot."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

AskedKind = Literal["auto", "px4", "ardupilot"]
AutopilotKind = Literal["px4", "ardupilot", "other", ""]


@dataclass(frozen=True)
class Fix:
    """One position.

    Attributes:
        stamp_ns: time of exposure, ns of ROS time.
        latitude, longitude: degrees, WGS84.
        altitude: m above the WGS84 ellipsoid; NaN = not known.
        covariance: 9 values, row-major, of (east, north, up), m^2.
        reset_counter: counts the times that the localizer jumped; another value announces a jump.
        processing_time: s from exposure until the fix was published; NaN = not known.
    """

    stamp_ns: int
    latitude: float
    longitude: float
    altitude: float = math.nan
    covariance: tuple[float, ...] = (math.nan,) * 9
    reset_counter: int = 0
    processing_time: float = math.nan


@dataclass(frozen=True)
class AutopilotState:
    """What the autopilot last said. NaN = not said yet.

    Attributes:
        kind: empty before the first heartbeat.
        heard_ns: monotonic ns of the newest packet from it, 0 = none yet.
        armed: motors may turn.
        gps_fix_type: 0..8 as in GPS_RAW_INT, 3 = a position in three dimensions.
        gps_sigma: m, its own horizontal accuracy.
        gps_seen_ns: monotonic ns of the newest packet that said such a position, 0 = none yet.
        gps_in_use: its estimator has an absolute position and its GPS a fix, so that the position
            is taken to come from there.
        yaw_aligned: its estimator has an attitude.
        latitude, longitude: degrees, its own estimate.
        altitude_amsl: m above mean sea level.
        height_above_home, height_above_ground: m.
        position_sigma: m, of its own estimate.
        orientation: body FLU to ENU (x, y, z, w).
        restarts: times that its clock went back.
        command_results: answers to commands, by MAV_RESULT.
    """

    kind: AutopilotKind = ""
    heard_ns: int = 0
    armed: bool = False
    gps_fix_type: int = 0
    gps_sigma: float = math.nan
    gps_seen_ns: int = 0
    gps_in_use: bool = False
    yaw_aligned: bool = False
    latitude: float = math.nan
    longitude: float = math.nan
    altitude_amsl: float = math.nan
    height_above_home: float = math.nan
    height_above_ground: float = math.nan
    position_sigma: float = math.nan
    orientation: tuple[float, float, float, float] | None = None
    restarts: int = 0
    command_results: dict[int, int] = field(default_factory=dict)

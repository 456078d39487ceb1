"""Fixes and odometry as the messages that PX4 and ArduPilot take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gps_denied_inference.autopilot.fix import Fix
from gps_denied_inference.autopilot.frames import (
    attitude_to_mavlink,
    body_covariance_to_mavlink,
    degrees_e7,
    enu_to_ned,
    flu_to_frd,
    pose_covariance_to_mavlink,
    wrapped_seconds,
)
from gps_denied_inference.errors import InvalidParameterError

EXTERNAL_POSITION_ESTIMATE = 43003
"""MAV_CMD_EXTERNAL_POSITION_ESTIMATE."""
MAX_LATENCY = 5.0
"""s; ArduPilot takes no older position."""
MAX_LENGTH = 1e6
"""m; larger heights and deviations are taken for defects and not sent."""
_SOURCE_VISION = 2
_UNHEALTHY = 1
_FRAME_GLOBAL = 0
_LOCAL_FRD = 20
_BODY_FRD = 12
_ESTIMATOR_VIO = 3
_UINT32_MAX = 0xFFFFFFFF


@dataclass(frozen=True)
class Odometry:
    """A pose and velocity between fixes, ROS's frames (ENU world, FLU body).

    Attributes:
        stamp_ns: ROS time, ns.
        position: m.
        orientation: (x, y, z, w).
        velocity, turn_rate: m/s and rad/s in the body frame.
        pose_covariance, twist_covariance: 36 values each, row-major.
        reset_counter: as in :class:`Fix`.
        quality: 0..1; NaN = not known.
    """

    stamp_ns: int
    position: tuple[float, float, float]
    orientation: tuple[float, float, float, float]
    velocity: tuple[float, float, float]
    turn_rate: tuple[float, float, float]
    pose_covariance: Sequence[float]
    twist_covariance: Sequence[float]
    reset_counter: int = 0
    quality: float = math.nan


def global_position_sensor(
    encoder: Any,
    fix: Fix,
    *,
    target: tuple[int, int],
    source_id: int,
    sigma: float,
    now_ns: int,
    autopilot_ns: int | None,
    undulation: float = math.nan,
    healthy: bool = True,
) -> Any:
    """Return GLOBAL_POSITION_SENSOR for PX4's auxiliary global position.

    Args:
        encoder: pymavlink's ``MAVLink``.
        fix: one that the policy let through.
        target: system and component.
        source_id: as ``EKF2_AGPn_ID`` names it.
        sigma: m, horizontal standard deviation.
        now_ns: ROS time of sending.
        autopilot_ns: the same on the autopilot's clock, None = not known; then ROS time is sent.
        undulation: m, the geoid above the ellipsoid here; NaN = not known.
        healthy: False marks a position that is no longer one.
    """
    latitude, longitude = degrees_e7(fix.latitude, fix.longitude)
    variance_up = float(fix.covariance[8])
    vertical = _length(math.sqrt(variance_up)) if variance_up > 0.0 else math.nan
    altitude = _length(fix.altitude)
    processing = min(max(0, (now_ns - fix.stamp_ns) // 1000), _UINT32_MAX)
    time_ns = now_ns if autopilot_ns is None else autopilot_ns
    return encoder.global_position_sensor_encode(
        *target,
        source_id,
        time_ns // 1000,
        processing,
        _SOURCE_VISION,
        0 if healthy else _UNHEALTHY,
        latitude,
        longitude,
        altitude,
        altitude - undulation,
        sigma,
        vertical if math.isfinite(altitude) else math.nan,
    )


def _length(value: float) -> float:
    """Return a height or its deviation, m; NaN where it is none that an aircraft could have."""
    return value if math.isfinite(value) and abs(value) <= MAX_LENGTH else math.nan


def external_position_estimate(
    encoder: Any, fix: Fix, *, target: tuple[int, int], sigma: float, now_ns: int
) -> Any:
    """Return COMMAND_INT with MAV_CMD_EXTERNAL_POSITION_ESTIMATE for ArduPilot.

    Raises:
        InvalidParameterError: the accuracy is not finite, which ArduPilot does not bear, or the
            fix is older than it takes.
    """
    if not (math.isfinite(sigma) and sigma > 0.0):
        raise InvalidParameterError("sigma", sigma, "a finite number > 0")
    processing = max(0.0, (now_ns - fix.stamp_ns) * 1e-9)
    if processing > MAX_LATENCY:
        raise InvalidParameterError("age", processing, f"at most {MAX_LATENCY:g} s for ArduPilot")
    latitude, longitude = degrees_e7(fix.latitude, fix.longitude)
    return encoder.command_int_encode(
        *target,
        _FRAME_GLOBAL,
        EXTERNAL_POSITION_ESTIMATE,
        0,
        0,
        wrapped_seconds(now_ns),
        processing,
        sigma,
        0.0,
        latitude,
        longitude,
        math.nan,
    )


def odometry(encoder: Any, pose: Odometry, autopilot_ns: int | None) -> Any:
    """Return ODOMETRY in LOCAL_FRD and BODY_FRD; north is forward, as in NED.

    Raises:
        InvalidParameterError: a value that is not finite.
    """
    values = (*pose.position, *pose.velocity, *pose.turn_rate)
    if not all(math.isfinite(value) for value in values):
        raise InvalidParameterError("odometry", values, "finite numbers")
    for name in ("pose_covariance", "twist_covariance"):
        covariance = getattr(pose, name)
        if len(covariance) != 36 or not all(math.isfinite(value) for value in covariance):
            raise InvalidParameterError(name, "NaN or infinity", "36 finite numbers")
    time_ns = pose.stamp_ns if autopilot_ns is None else autopilot_ns
    return encoder.odometry_encode(
        time_ns // 1000,
        _LOCAL_FRD,
        _BODY_FRD,
        *enu_to_ned(pose.position),
        list(attitude_to_mavlink(pose.orientation)),
        *flu_to_frd(pose.velocity),
        *flu_to_frd(pose.turn_rate),
        pose_covariance_to_mavlink(pose.pose_covariance),
        body_covariance_to_mavlink(pose.twist_covariance),
        pose.reset_counter % 256,
        _ESTIMATOR_VIO,
        _percent(pose.quality),
    )


def _percent(quality: float) -> int:
    """Return 1 (worst) to 100 of a quality 0..1; 0, which is MAVLink's "unknown", of NaN."""
    return min(max(round(100 * quality), 1), 100) if math.isfinite(quality) else 0

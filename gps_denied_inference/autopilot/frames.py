"""ROS's frames and units to MAVLink's and back; every conversion of the link stands here.

ROS (REP-103): ENU world, FLU body, quaternions (x, y, z, w), degrees of latitude and longitude.
MAVLink: NED world, FRD body, quaternions (w, x, y, z), degE7, millimetres, seconds in a float.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gps_denied_inference.errors import InvalidParameterError

FloatArray = npt.NDArray[np.float64]

WRAP_PERIOD = 1000.0
"""s, period of the transmission time of ArduPilot's external position estimate: a float32 resolves
60 us in it."""
_HALF = math.sqrt(0.5)
_ENU_TO_NED = (0.0, _HALF, _HALF, 0.0)
_FLU_TO_FRD = (0.0, 1.0, 0.0, 0.0)


def enu_to_ned(vector: Sequence[float]) -> tuple[float, float, float]:
    """Return (north, east, down) of (east, north, up). Its own inverse."""
    east, north, up = (float(value) for value in vector)
    return north, east, -up


def flu_to_frd(vector: Sequence[float]) -> tuple[float, float, float]:
    """Return (forward, right, down) of (forward, left, up). Its own inverse."""
    forward, left, up = (float(value) for value in vector)
    return forward, -left, -up


def attitude_to_mavlink(xyzw: Sequence[float]) -> tuple[float, float, float, float]:
    """Return body FRD to NED as (w, x, y, z), w >= 0, of body FLU to ENU as (x, y, z, w).

    Raises:
        InvalidParameterError: not finite, or of no length.
    """
    x, y, z, w = _unit(xyzw)
    return _positive(_product(_product(_ENU_TO_NED, (w, x, y, z)), _FLU_TO_FRD))


def attitude_to_ros(wxyz: Sequence[float]) -> tuple[float, float, float, float]:
    """Return body FLU to ENU as (x, y, z, w), w >= 0, of body FRD to NED as (w, x, y, z).

    Raises:
        InvalidParameterError: not finite, or of no length.
    """
    w, x, y, z = _positive(_product(_product(_ENU_TO_NED, _unit(wxyz)), _FLU_TO_FRD))
    return x, y, z, w


def quaternion_of_euler(roll: float, pitch: float, yaw: float) -> tuple[float, float, float, float]:
    """Return (w, x, y, z) of aerospace angles in rad: yaw about z, then pitch, then roll."""
    half = [0.5 * angle for angle in (roll, pitch, yaw)]
    (sr, sp, sy), (cr, cp, cy) = [math.sin(a) for a in half], [math.cos(a) for a in half]
    return (
        cr * cp * cy + sr * sp * sy,
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
    )


def pose_covariance_to_mavlink(covariance: Sequence[float]) -> list[float]:
    """Return the 21 values of the upper triangle in NED and FRD axes of a ROS 6x6 covariance.

    Args:
        covariance: 36 values, row-major, of (x, y, z, about x, about y, about z) in ENU, m and rad.
    """
    matrix = np.asarray(covariance, np.float64).reshape(6, 6)
    turn = np.zeros((6, 6))
    for corner in (0, 3):
        turn[corner : corner + 3, corner : corner + 3] = [[0, 1, 0], [1, 0, 0], [0, 0, -1]]
    turned = turn @ matrix @ turn.T
    return [float(turned[i, j]) for i in range(6) for j in range(i, 6)]


def body_covariance_to_mavlink(covariance: Sequence[float]) -> list[float]:
    """Return the 21 values of the upper triangle in FRD axes of a 6x6 covariance in FLU axes."""
    sign = np.array([1.0, -1.0, -1.0, 1.0, -1.0, -1.0])
    turned = np.asarray(covariance, np.float64).reshape(6, 6) * np.outer(sign, sign)
    return [float(turned[i, j]) for i in range(6) for j in range(i, 6)]


def degrees_e7(latitude: float, longitude: float) -> tuple[int, int]:
    """Return latitude and longitude in degE7, the longitude wrapped to -180..180 degrees.

    Raises:
        InvalidParameterError: not finite, or a latitude beyond the poles.
    """
    if not (math.isfinite(latitude) and math.isfinite(longitude)):
        raise InvalidParameterError("position", (latitude, longitude), "finite degrees")
    if abs(latitude) > 90.0:
        raise InvalidParameterError("latitude", latitude, "in -90..90 degrees")
    wrapped = (longitude + 180.0) % 360.0 - 180.0
    return round(latitude * 1e7), round(wrapped * 1e7)


def wrapped_seconds(time_ns: int) -> float:
    """Return a time in s, wrapped to ``WRAP_PERIOD``."""
    return (time_ns % round(WRAP_PERIOD * 1e9)) * 1e-9


def compass_of_yaw(yaw: float) -> float:
    """Return the heading, rad in 0..2 pi clockwise from north, of a yaw in ENU; its own inverse."""
    return (0.5 * math.pi - yaw) % (2.0 * math.pi)


def horizontal_sigma(covariance: Sequence[float]) -> float:
    """Return the standard deviation, m, along the worst horizontal direction.

    Args:
        covariance: 9 values, row-major, of (east, north, up), m^2.
    """
    block = np.asarray(covariance, np.float64).reshape(3, 3)[:2, :2]
    return math.sqrt(max(float(np.linalg.eigvalsh(block)[-1]), 0.0))


def _unit(quaternion: Sequence[float]) -> tuple[float, float, float, float]:
    values = np.asarray(quaternion, np.float64)
    length = float(np.linalg.norm(values)) if values.shape == (4,) else math.nan
    if not math.isfinite(length) or length < 1e-6:
        raise InvalidParameterError("orientation", tuple(quaternion), "a quaternion of unit length")
    a, b, c, d = (values / length).tolist()
    return a, b, c, d


def _positive(q: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """Return the one of two equal rotations whose w is not negative."""
    return q if q[0] >= 0.0 else (-q[0], -q[1], -q[2], -q[3])


def _product(
    a: tuple[float, float, float, float], b: tuple[float, float, float, float]
) -> tuple[float, float, float, float]:
    """Return the rotation ``b`` followed by ``a``, both (w, x, y, z)."""
    aw, ax, ay, az = a
    bw, bx, by, bz = b
    return (
        aw * bw - ax * bx - ay * by - az * bz,
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
    )

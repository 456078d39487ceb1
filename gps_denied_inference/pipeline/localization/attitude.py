"""The body's attitude, as an IMU gives it, to what localization knows of the camera.

Frames: body FLU (x forward, y left, z up), camera optical (x right, y down, z forward), world ENU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gps_denied_inference.errors import InvalidParameterError
from gps_denied_inference.pipeline.localization.prior import heading_and_gravity, rotation

Matrix = npt.NDArray[np.float64]

LOOKING_DOWN = np.array([[0.0, -1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
"""Camera optical to body FLU for a camera that looks down with the image's top ahead."""


def mount(roll: float, pitch: float, yaw: float) -> Matrix:
    """Return camera optical to body FLU, (3, 3), of a camera turned from looking down.

    Args:
        roll, pitch, yaw: rad, about the body's forward, left and up axis, in this order.
    """
    (cr, sr), (cp, sp), (cy, sy) = ((math.cos(a), math.sin(a)) for a in (roll, pitch, yaw))
    about_x = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    about_y = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    about_z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x @ LOOKING_DOWN, np.float64)


def matrix_of(xyzw: Sequence[float]) -> Matrix:
    """Return the rotation of a quaternion, (3, 3).

    Raises:
        InvalidParameterError: not finite, or of no length.
    """
    values = np.asarray(xyzw, np.float64)
    length = float(np.linalg.norm(values)) if values.shape == (4,) else math.nan
    if not math.isfinite(length) or length < 1e-6:
        raise InvalidParameterError("orientation", tuple(xyzw), "a quaternion of unit length")
    x, y, z, w = values / length
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def quaternion_of(turn: Matrix) -> tuple[float, float, float, float]:
    """Return (x, y, z, w), w >= 0, of a rotation (3, 3)."""
    m = np.asarray(turn, np.float64)
    # Each row of this symmetric matrix is the quaternion times one of its parts.
    k = np.array(
        [
            [m[0, 0] - m[1, 1] - m[2, 2], m[0, 1] + m[1, 0], m[0, 2] + m[2, 0], m[2, 1] - m[1, 2]],
            [m[0, 1] + m[1, 0], m[1, 1] - m[0, 0] - m[2, 2], m[1, 2] + m[2, 1], m[0, 2] - m[2, 0]],
            [m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], m[2, 2] - m[0, 0] - m[1, 1], m[1, 0] - m[0, 1]],
            [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], np.trace(m)],
        ]
    )
    vector = np.linalg.eigh(k)[1][:, -1]
    x, y, z, w = (float(v) for v in (vector if vector[3] >= 0.0 else -vector))
    return x, y, z, w


@dataclass(frozen=True, eq=False)
class CameraAttitude:
    """How the camera was turned.

    Attributes:
        heading: of the image's top on the ground, rad clockwise from north.
        gravity: unit vector in the camera's frame.
        heading_sigma, tilt_sigma: rad.
    """

    heading: float
    gravity: Matrix
    heading_sigma: float
    tilt_sigma: float

    @classmethod
    def of_body(
        cls, xyzw: Sequence[float], mounted: Matrix, heading_sigma: float, tilt_sigma: float
    ) -> CameraAttitude | None:
        """Return the attitude of a mounted camera; None where it looks so that no heading shows.

        Args:
            xyzw: body FLU to ENU.
            mounted: from :func:`mount`.

        Raises:
            InvalidParameterError: no quaternion.
        """
        camera = matrix_of(xyzw) @ mounted
        heading, gravity = heading_and_gravity(camera)
        if abs(float(gravity[1])) > 0.999:  # the image's top points straight up or down
            return None
        return cls(heading, gravity, heading_sigma, tilt_sigma)


def body_of(heading: float, gravity: Matrix, mounted: Matrix) -> tuple[float, float, float, float]:
    """Return body FLU to ENU, (x, y, z, w), of a mounted camera's heading and gravity."""
    return quaternion_of(rotation(heading, gravity) @ mounted.T)


def lean(heading: float, gravity: Matrix, height: float) -> complex:
    """Return the way on the ground from below the camera to where its axis meets it, m (E + iN)."""
    axis = rotation(heading, gravity)[:, 2]
    along = height / max(-float(axis[2]), 0.1)
    return complex(along * float(axis[0]), along * float(axis[1]))

"""Derivatives of a camera's pose over even ground by the nine elements of its step.

The elements are those of :meth:`~gps_denied_inference.pipeline.localization.pose.Pose.moved`: east,
north, log height, heading, two tilts, log focal, two slopes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gps_denied_inference.pipeline.localization.prior import cross

Array = npt.NDArray[np.float64]

EAST, NORTH, HEIGHT, HEADING, TILT, FOCAL, SLOPE = 0, 1, 2, 3, slice(4, 6), 6, slice(7, 9)
ELEMENTS = 9


def gravity_by_tilt(gravity: Array) -> Array:
    """Return how gravity (3,) in the camera's frame changes by the two tilts, (2, 3)."""
    x, y, z = gravity.tolist()
    return np.array([[0.0, -z, y], [z, 0.0, -x]])


def turn_by_heading(turn: Array) -> Array:
    """Return how the rotation (3, 3) from camera to ENU changes by the heading, (3, 3)."""
    return np.stack([turn[1], -turn[0], np.zeros(3)])


def turn_by_gravity(heading: float, gravity: Array, change: Array) -> Array:
    """Return how ``rotation(heading, gravity)`` changes as gravity changes, (3, 3)."""
    up = np.array([0.0, -1.0, 0.0])
    level = up - (up @ gravity) * gravity
    length = float(np.linalg.norm(level))
    ahead = level / length
    level_by = -(up @ change) * gravity - (up @ gravity) * change
    ahead_by = (level_by - (ahead @ level_by) * ahead) / length
    right_by = cross(change, ahead) + cross(gravity, ahead_by)
    cosine, sine = math.cos(heading), math.sin(heading)
    return np.stack([
        sine * ahead_by + cosine * right_by, cosine * ahead_by - sine * right_by, -change,
    ])  # fmt: skip


@dataclass(frozen=True, eq=False)
class Derivatives:
    """Of what a pose fixes, by its step.

    Attributes:
        gravity: (2, 3), by the two tilts.
        turn: (3, 3, 3), of the rotation, by heading and the two tilts.
        axis: (2, 9) m, of where the optical axis meets the ground, east and north.
    """

    gravity: Array
    turn: Array
    axis: Array

    @classmethod
    def at(cls, turn: Array, heading: float, gravity: Array, height: float) -> Derivatives:
        """Differentiate at a pose.

        Args:
            turn: (3, 3) from the camera's frame to ENU.
            heading: rad, that ``turn`` is made of, with gravity.
            gravity: (3,) unit vector in the camera's frame.
            height: m.
        """
        by_tilt = gravity_by_tilt(gravity)
        turns = np.stack([
            turn_by_heading(turn), *(turn_by_gravity(heading, gravity, row) for row in by_tilt),
        ])  # fmt: skip
        ahead = turn[:, 2]
        reach = -height / ahead[2]
        axis = np.zeros((2, ELEMENTS))
        axis[:, :2] = np.eye(2)
        axis[:, HEIGHT] = reach * ahead[:2]
        ahead_by = turns[:, :, 2]
        reach_by = height / ahead[2] ** 2 * ahead_by[:, 2]
        axis[:, 3:6] = (reach_by[:, None] * ahead[:2] + reach * ahead_by[:, :2]).T
        return cls(by_tilt, turns, axis)


def projection(
    offset: Array,
    from_axis: npt.NDArray[np.complex128],
    turn: Array,
    focal: float,
    slope: Array,
    height: float,
    by: Derivatives,
) -> tuple[Array, Array]:
    """Project ground points, with derivatives.

    Args:
        offset: (N, 3) m, of the points from the camera, ENU.
        from_axis: (N,) m, of the points from where the axis meets the ground.
        turn: (3, 3) from the camera's frame to ENU.
        focal: true over assumed focal length.
        slope: (2,) rise of the ground eastwards and northwards.
        height: m, of the camera.
        by: the pose's derivatives.

    Returns:
        (N, 2) on the normalised plane of the assumed lens, NaN behind the camera, and
        (N, 2, 9) their derivatives, zero there.
    """
    seen = offset @ turn
    seen_by = np.empty((len(offset), ELEMENTS, 3))
    # A shift of the axis lowers the sloping ground under a fixed point.
    seen_by[:] = -(slope @ by.axis)[:, None] * turn[2]
    seen_by[:, EAST] -= turn[0]
    seen_by[:, NORTH] -= turn[1]
    seen_by[:, HEIGHT] -= height * turn[2]
    for index, change in enumerate(by.turn):
        seen_by[:, HEADING + index] += offset @ change
    seen_by[:, 7] += from_axis.real[:, None] * turn[2]
    seen_by[:, 8] += from_axis.imag[:, None] * turn[2]
    ahead = seen[:, 2] > 1e-9
    depth = np.where(ahead, seen[:, 2], np.nan)
    at = focal * seen[:, :2] / depth[:, None]
    slopes = focal * seen_by[:, :, :2] - at[:, None, :] * seen_by[:, :, 2:]
    slopes /= depth[:, None, None]
    slopes[:, FOCAL] = at
    slopes[~ahead] = 0.0
    return np.asarray(at, np.float64), np.asarray(slopes.transpose(0, 2, 1), np.float64)

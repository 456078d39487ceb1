"""Derivatives of a camera's pose over even ground by the nine elements of its step.

The elements are those of :meth:`~gps_denied_inference.pipeline.localization.pose.Pose.moved`: east,
north, log height, heading, two tilts, log focal, two slopes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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
    # On single numbers: numpy takes longer to begin than these few products take.
    g, c = tuple(gravity.tolist()), tuple(change.tolist())
    level = (g[1] * g[0], g[1] * g[1] - 1.0, g[1] * g[2])
    length = math.sqrt(level[0] ** 2 + level[1] ** 2 + level[2] ** 2) or math.nan
    ahead = tuple(x / length for x in level)
    level_by = tuple(c[1] * x + g[1] * y for x, y in zip(g, c, strict=True))
    along = sum(x * y for x, y in zip(ahead, level_by, strict=True))
    ahead_by = tuple((x - along * y) / length for x, y in zip(level_by, ahead, strict=True))
    right_by = tuple(x + y for x, y in zip(_crossed(c, ahead), _crossed(g, ahead_by), strict=True))
    cosine, sine = math.cos(heading), math.sin(heading)
    return np.array([
        [sine * x + cosine * y for x, y in zip(ahead_by, right_by, strict=True)],
        [cosine * x - sine * y for x, y in zip(ahead_by, right_by, strict=True)],
        [-x for x in c],
    ])  # fmt: skip


def _crossed(a: tuple[float, ...], b: tuple[float, ...]) -> tuple[float, float, float]:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


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
        turns = np.empty((3, 3, 3))
        turns[0] = turn_by_heading(turn)
        for index, row in enumerate(by_tilt, 1):
            turns[index] = turn_by_gravity(heading, gravity, row)
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

"""What is known before a frame is looked at, each with its uncertainty."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gps_denied_inference.errors import InvalidParameterError

Vector = npt.NDArray[np.float64]

NADIR = (0.0, 0.0, 1.0)
"""Gravity in the frame of a camera that looks straight down."""


MOST_TILT = math.radians(60.0)
"""Of the camera from straight down, for a frame that is to be placed."""


@dataclass(frozen=True)
class Prior:
    """What is known of the camera when the frame was taken; None is "not known".

    Attributes:
        position: of the camera in map ENU, m (east, north).
        position_sigma: m, along each axis.
        height: of the camera above the ground, m.
        height_sigma: m.
        heading: direction of the image's top on the ground, rad clockwise from north.
        heading_sigma: rad.
        down: direction of gravity in the camera's frame (x right, y down, z forward), any length.
        down_sigma: rad, of its angle along each axis.

    Raises:
        InvalidParameterError: a value without its sigma or the other way round, one that is not
            finite, a sigma or a height that is not positive, a ``down`` without length.
    """

    position: tuple[float, float] | None = None
    position_sigma: float | None = None
    height: float | None = None
    height_sigma: float | None = None
    heading: float | None = None
    heading_sigma: float | None = None
    down: tuple[float, float, float] | None = None
    down_sigma: float | None = None

    def __post_init__(self) -> None:
        for name in ("position", "height", "heading", "down"):
            value, sigma = getattr(self, name), getattr(self, f"{name}_sigma")
            if (value is None) != (sigma is None):
                raise InvalidParameterError(
                    f"{name}, {name}_sigma", (value, sigma), "given both or neither"
                )
            if value is None:
                continue
            if not np.isfinite(np.asarray(value, np.float64)).all():
                raise InvalidParameterError(name, value, "finite")
            if not (math.isfinite(sigma) and sigma > 0.0):
                raise InvalidParameterError(f"{name}_sigma", sigma, "finite and above 0")
        if self.height is not None and not self.height > 0.0:
            raise InvalidParameterError("height", self.height, "above 0 m")
        if self.down is not None and not np.linalg.norm(self.down) > 1e-9:
            raise InvalidParameterError("down", self.down, "a direction, not zero")

    @property
    def gravity(self) -> Vector:
        """Unit vector of gravity in the camera's frame; straight ahead where it is not known."""
        vector = np.asarray(self.down if self.down is not None else NADIR, np.float64)
        return np.asarray(vector / np.linalg.norm(vector), np.float64)

    @property
    def looks_down(self) -> bool:
        """Tell whether the axis meets the ground near enough below for frames to be placed."""
        return bool(self.gravity[2] >= math.cos(MOST_TILT))


def cross(a: Vector, b: Vector) -> Vector:
    """Return the cross product (3,) of two vectors (3,): ``np.cross`` takes far longer."""
    (a0, a1, a2), (b0, b1, b2) = a.tolist(), b.tolist()
    return np.array([a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0])


def rotation(heading: float, gravity: Vector) -> Vector:
    """Return the rotation (3, 3) from the camera's frame to ENU.

    Args:
        heading: of the image's top on the ground, rad clockwise from north.
        gravity: unit vector in the camera's frame; not along the image's y axis.
    """
    # On single numbers: numpy takes longer to begin than these few products take.
    x, y, z = gravity.tolist()
    length = math.sqrt((y * x) ** 2 + (y * y - 1.0) ** 2 + (y * z) ** 2) or math.nan
    ahead = (y * x / length, (y * y - 1.0) / length, y * z / length)
    right = (
        y * ahead[2] - z * ahead[1], z * ahead[0] - x * ahead[2], x * ahead[1] - y * ahead[0],
    )  # fmt: skip
    cosine, sine = math.cos(heading), math.sin(heading)
    return np.array([
        [sine * a + cosine * b for a, b in zip(ahead, right, strict=True)],
        [cosine * a - sine * b for a, b in zip(ahead, right, strict=True)],
        [-x, -y, -z],
    ])  # fmt: skip


def heading_and_gravity(matrix: npt.NDArray[np.floating]) -> tuple[float, Vector]:
    """Return the heading, rad, and gravity of a rotation (3, 3): undoes :func:`rotation`."""
    matrix = np.asarray(matrix, np.float64)
    gravity = -matrix[2]
    up = np.array([0.0, -1.0, 0.0])
    ahead = matrix @ (up - (up @ gravity) * gravity)
    return math.atan2(ahead[0], ahead[1]), gravity

"""Camera models of ``sensor_msgs/CameraInfo``: pixels to the normalised image plane and back.

The mathematics is OpenCV's (``cv2.undistortPoints``, ``cv2.projectPoints`` and their
``cv2.fisheye`` siblings); here are the names, the checks and one more step of accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from gps_denied_inference.errors import InvalidParameterError, UnknownNameError

Points = npt.NDArray[np.float64]

DISTORTION_MODELS: dict[str, tuple[int, ...]] = {
    "plumb_bob": (0, 4, 5),
    "rational_polynomial": (8,),
    "equidistant": (4,),
}
"""Name in ``camera_info`` -> the numbers of coefficients it may have (0 = none: ideal lens)."""

_NEWTON_STEPS = 6
_TOLERANCE = 1e-4  # px, no more steps are taken below
_ACCEPTED = 0.05  # px


@dataclass(frozen=True, eq=False)
class CameraModel:
    """A calibrated lens. Make it with :meth:`from_info`.

    Attributes:
        distortion_model: a name of :data:`DISTORTION_MODELS`.
        matrix: (3, 3) float64, px: K.
        distortion: (n,) float64, in the order of ``camera_info``.
        width, height: px of the calibrated image.
    """

    distortion_model: str
    matrix: Points
    distortion: Points
    width: int
    height: int

    @classmethod
    def from_info(
        cls,
        distortion_model: str,
        k: Sequence[float] | npt.NDArray[np.floating],
        d: Sequence[float] | npt.NDArray[np.floating],
        width: int,
        height: int,
    ) -> CameraModel:
        """Build from the fields of ``sensor_msgs/CameraInfo``.

        Args:
            distortion_model: ``"plumb_bob"``, ``"rational_polynomial"`` or ``"equidistant"``; an
                empty name with no coefficients is an ideal lens.
            k: 9 values, row-major, px.
            d: the model's coefficients.
            width, height: px of the calibrated image.

        Raises:
            UnknownNameError: no such distortion model.
            InvalidParameterError: a value that no calibrated camera has, such as the all-zero K
                that drivers send when they are not calibrated.
        """
        distortion = np.asarray(d, np.float64).ravel()
        if not distortion_model and not distortion.any():
            distortion_model, distortion = "plumb_bob", np.zeros(0)
        if distortion_model not in DISTORTION_MODELS:
            raise UnknownNameError("distortion model", distortion_model, DISTORTION_MODELS)
        counts = DISTORTION_MODELS[distortion_model]
        if len(distortion) not in counts:
            raise InvalidParameterError(
                "d",
                distortion.tolist(),
                f"of length {' or '.join(map(str, counts))} for '{distortion_model}'",
            )
        flat = np.asarray(k, np.float64).ravel()
        if flat.size != 9:
            raise InvalidParameterError("k", flat.tolist(), "9 values, row-major")
        matrix = flat.reshape(3, 3)
        if not (np.isfinite(matrix).all() and np.isfinite(distortion).all()):
            raise InvalidParameterError("k, d", (k, d), "finite")
        if matrix[0, 0] <= 0.0 or matrix[1, 1] <= 0.0 or matrix[2].tolist() != [0.0, 0.0, 1.0]:
            raise InvalidParameterError(
                "k", matrix.ravel().tolist(), "a calibrated camera matrix (camera is uncalibrated?)"
            )
        if width <= 0 or height <= 0:
            raise InvalidParameterError("width, height", (width, height), "positive")
        return cls(distortion_model, matrix, distortion, int(width), int(height))

    def undistort(self, points: npt.NDArray[np.floating]) -> Points:
        """Map pixels to the normalised image plane z = 1.

        Args:
            points: (N, 2), px of the calibrated image, (0, 0) at the top-left pixel's centre.

        Returns:
            (N, 2) float64; NaN where the lens model has no answer, such as pixels beyond the edge
            of a fisheye's image circle.
        """
        pixels = np.asarray(points, np.float64).reshape(-1, 2)
        if len(pixels) == 0:
            return np.zeros((0, 2))
        start = cv2.fisheye if self.distortion_model == "equidistant" else cv2
        normal = start.undistortPoints(pixels[:, None], self.matrix, self.distortion)
        return self._refine(np.array(normal, np.float64).reshape(-1, 2), pixels)

    def _refine(self, normal: Points, pixels: Points) -> Points:
        """Polish with Newton steps on :meth:`project`.

        OpenCV stops after five fixed-point steps, which strong lenses leave half a pixel off; the
        option for more has another name in each of its major versions. What still does not project
        back to its pixel must not reach an estimator: it becomes NaN.
        """
        step = 1e-6
        along_x, along_y = np.array([step, 0.0]), np.array([0.0, step])
        with np.errstate(all="ignore"):
            for _ in range(_NEWTON_STEPS):
                here = self.project(normal)
                error = here - pixels
                if not np.nanmax(np.abs(error), initial=0.0) > _TOLERANCE:
                    break
                a, c = ((self.project(normal + along_x) - here) / step).T
                b, d = ((self.project(normal + along_y) - here) / step).T
                determinant = a * d - b * c
                normal[:, 0] -= (d * error[:, 0] - b * error[:, 1]) / determinant
                normal[:, 1] -= (a * error[:, 1] - c * error[:, 0]) / determinant
            residual = np.linalg.norm(self.project(normal) - pixels, axis=1)
            normal[~(residual < _ACCEPTED)] = np.nan
        return normal

    def project(self, points: npt.NDArray[np.floating]) -> Points:
        """Map (N, 2) points of the normalised image plane to px, (N, 2) float64."""
        normal = np.asarray(points, np.float64).reshape(-1, 2)
        if len(normal) == 0:
            return np.zeros((0, 2))
        if self.distortion_model == "equidistant":
            pixels = cv2.fisheye.distortPoints(normal[:, None], self.matrix, self.distortion)
        else:
            space = np.column_stack([normal, np.ones(len(normal))])
            pixels, _ = cv2.projectPoints(
                space, np.zeros(3), np.zeros(3), self.matrix, self.distortion
            )
        return np.asarray(pixels, np.float64).reshape(-1, 2)

"""Camera models of ``sensor_msgs/CameraInfo``: pixels to the normalised image plane and back.

The mathematics is OpenCV's (``cv2.undistortPoints``, ``cv2.projectPoints`` and their
``cv2.fisheye`` siblings); here are the names, the checks and one more step of accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from gps_denied_inference.errors import InvalidParameterError, UnknownNameError

Points = npt.NDArray[np.float64]

_OPENCV_COUNTS = (0, 4, 5, 8, 12, 14)
"""Numbers of coefficients of OpenCV's one polynomial model; those left out are 0."""

DISTORTION_MODELS: dict[str, tuple[int, ...]] = {
    "plumb_bob": _OPENCV_COUNTS,
    "rational_polynomial": _OPENCV_COUNTS,
    "equidistant": (4,),
}
"""Name in ``camera_info`` -> the numbers of coefficients it may have (0 = none: ideal lens)."""

OTHER_NAMES = {
    "plumbbob": "plumb_bob",
    "radtan": "plumb_bob",
    "radial_tangential": "plumb_bob",
    "brown_conrady": "plumb_bob",
    "rational": "rational_polynomial",
    "fisheye": "equidistant",
    "equi": "equidistant",
    "kannala_brandt": "equidistant",
    "kannala_brandt4": "equidistant",
}
"""What OpenCV, Kalibr and drivers call a model -> its name in :data:`DISTORTION_MODELS`.

Upper case, spaces and hyphens make no difference.
"""

_NEWTON_STEPS = 6
_TOLERANCE = 1e-4  # px, no more steps are taken below
_ACCEPTED = 0.05  # px


@dataclass(frozen=True, eq=False)
class CameraModel:
    """A calibrated lens. Make it with :meth:`from_info`.

    Attributes:
        distortion_model: a name of :data:`DISTORTION_MODELS`.
        matrix: (3, 3) float64, px: K of the image as received, cut and binned.
        distortion: (n,) float64, in the order of ``camera_info``.
        width, height: px of the image as received.
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
        *,
        binning: tuple[int, int] = (1, 1),
        roi: tuple[int, int, int, int] = (0, 0, 0, 0),
    ) -> CameraModel:
        """Build from the fields of ``sensor_msgs/CameraInfo``, read as ``image_geometry`` does.

        Args:
            distortion_model: a name of :data:`DISTORTION_MODELS` or :data:`OTHER_NAMES`; an empty
                name with no coefficients but zeros is an ideal lens.
            k: 9 values, row-major, px of the full sensor.
            d: the model's coefficients; zeros behind them are left out.
            width, height: px of the full sensor.
            binning: sensor px to one of the image, along x and y; 0 = 1.
            roi: x offset, y offset, width, height, px of the full sensor: the part that is in the
                image, cut before it is binned. All zero = the full sensor.

        Raises:
            UnknownNameError: no such distortion model.
            InvalidParameterError: a value that no calibrated camera has, such as the all-zero K
                that drivers send when they are not calibrated.
        """
        model, distortion = _lens(distortion_model, np.asarray(d, np.float64).ravel())
        flat = np.asarray(k, np.float64).ravel()
        if flat.size != 9:
            raise InvalidParameterError("k", flat.tolist(), "9 values, row-major")
        matrix = flat.reshape(3, 3).copy()
        if not (np.isfinite(matrix).all() and np.isfinite(distortion).all()):
            raise InvalidParameterError("k, d", (k, d), "finite")
        if matrix[0, 0] <= 0.0 or matrix[1, 1] <= 0.0 or matrix[2].tolist() != [0.0, 0.0, 1.0]:
            raise InvalidParameterError(
                "k", matrix.ravel().tolist(), "a calibrated camera matrix (camera is uncalibrated?)"
            )
        if width <= 0 or height <= 0:
            raise InvalidParameterError("width, height", (width, height), "positive")
        left, top, wide, high = roi if any(roi) else (0, 0, width, height)
        if min(left, top) < 0 or min(wide, high) <= 0 or left + wide > width or top + high > height:
            raise InvalidParameterError(
                "roi", roi, f"inside the {width} x {height} px of the sensor"
            )
        across, down = (max(1, int(step)) for step in binning)
        if across > wide or down > high:
            raise InvalidParameterError(
                "binning", binning, f"at most the {wide} x {high} px of roi"
            )
        matrix[:2, 2] -= left, top
        matrix[:2] /= np.array([[across], [down]])
        return cls(model, matrix, distortion, int(wide) // across, int(high) // down)

    def undistort(self, points: npt.NDArray[np.floating]) -> Points:
        """Map pixels to the normalised image plane z = 1.

        Args:
            points: (N, 2), px of the image as received, (0, 0) at the top-left pixel's centre.

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
        if not self.distortion.any() and self.distortion_model != "equidistant":
            return np.asarray(normal @ self.matrix[:2, :2].T + self.matrix[:2, 2], np.float64)
        if self.distortion_model == "equidistant":
            pixels = cv2.fisheye.distortPoints(normal[:, None], self.matrix, self.distortion)
        else:
            space = np.column_stack([normal, np.ones(len(normal))])
            pixels, _ = cv2.projectPoints(
                space, np.zeros(3), np.zeros(3), self.matrix, self.distortion
            )
        return np.asarray(pixels, np.float64).reshape(-1, 2)


def calibration_beside(image_topic: str) -> str:
    """Return the ``camera_info`` beside an image topic, as image_transport's subscribers have it.

    ``/cam/image_raw`` and ``/cam/image_raw/compressed`` both give ``/cam/camera_info``.
    """
    base = image_topic.removesuffix("/compressed")
    return base[: base.rfind("/") + 1] + "camera_info"


def calibration_fields(message: Any) -> dict[str, Any]:
    """Return the arguments of :meth:`CameraModel.from_info` that a message gives.

    Args:
        message: ``sensor_msgs/CameraInfo``, of rclpy or of ``rosbags``.
    """
    roi = message.roi
    return {
        "distortion_model": message.distortion_model,
        "k": tuple(message.k),
        "d": tuple(message.d),
        "width": message.width,
        "height": message.height,
        "binning": (message.binning_x, message.binning_y),
        "roi": (roi.x_offset, roi.y_offset, roi.width, roi.height),
    }


def _lens(name: str, distortion: Points) -> tuple[str, Points]:
    """Return the model's own name, and its coefficients without the zeros behind them.

    Raises:
        UnknownNameError: no such distortion model.
        InvalidParameterError: the model has no such number of coefficients.
    """
    if not name and not distortion.any():
        return "plumb_bob", np.zeros(0)
    plain = "_".join(name.lower().replace("-", " ").split())
    model = OTHER_NAMES.get(plain, plain)
    if model not in DISTORTION_MODELS:
        raise UnknownNameError("distortion model", name, [*DISTORTION_MODELS, *OTHER_NAMES])
    counts = DISTORTION_MODELS[model]
    used = int(np.flatnonzero(distortion)[-1]) + 1 if distortion.any() else 0
    fitting = [count for count in counts if used <= count <= len(distortion)]
    if not fitting:
        lengths = " or ".join(", ".join(map(str, counts)).rsplit(", ", 1))
        raise InvalidParameterError(
            "d", distortion.tolist(), f"of length {lengths} for '{name}', or zeros behind that"
        )
    return model, distortion[: fitting[0]].copy()

"""The camera's pose over even ground from pairs of rays and ground points.

A plane seen by a camera of known lens is a homography of six parameters; what the prior knows of
tilt, height, focal length and the ground's slope enters as observations, so that the covariance
holds them all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from gps_denied_inference.pipeline.localization import pose_derivatives as by
from gps_denied_inference.pipeline.localization.prior import cross, rotation

Points = npt.NDArray[np.float64]

ITERATIONS = 12
SETTLED_PX = 0.02
"""px of the tile: once no pair moves further in a step, the pose stays as it is."""
CELLS = 4
"""Residuals in one cell of a CELLS x CELLS grid over the pairs share relief, shadows and the map's
own distortion: the covariance takes each cell as one piece of evidence."""
LEAST_PAIRS = 4
LEAST_RMS_PX = 0.5
"""No keypoint is better than this."""
LEAST_DOWN = 1e-3
"""Of gravity along the axis, below which the axis counts as level."""
SLOPE_SIGMA = 0.03
"""Of the ground's slope each way: what a flat map takes for a tilt of the camera."""


@dataclass(frozen=True, eq=False)
class Pose:
    """A camera over flat ground.

    Attributes:
        camera: (3,) m: east and north in map ENU, height above ground.
        heading: of the image's top, rad clockwise from north.
        gravity: unit vector in the camera's frame.
        focal: true over assumed focal length.
        slope: (2,) rise of the ground eastwards and northwards, about where the axis meets it.
    """

    camera: Points
    heading: float
    gravity: Points
    focal: float
    slope: Points = field(default_factory=lambda: np.zeros(2))

    @property
    def reach(self) -> float:
        """M on the ground per unit of the assumed lens's normalised plane, at the axis.

        The geometric mean of both directions: along the lean a step on the ground looks shorter.
        """
        return float(self.camera[2] / self.focal / max(self.gravity[2], LEAST_DOWN) ** 1.5)

    @property
    def axis(self) -> complex:
        """Where the optical axis meets the ground, map ENU, m."""
        return self._axis(rotation(self.heading, self.gravity))

    def _axis(self, turn: Points) -> complex:
        ahead = turn[:, 2]
        reach = self.camera[2] / -ahead[2]
        return complex(self.camera[0] + reach * ahead[0], self.camera[1] + reach * ahead[1])

    def project(self, ground: npt.NDArray[np.complex128]) -> Points:
        """Map ground points (N,) to the normalised image plane (N, 2) of the assumed lens."""
        turn = rotation(self.heading, self.gravity)
        seen = self._offset(ground, ground - self._axis(turn)) @ turn
        depth = np.where(seen[:, 2] > 1e-9, seen[:, 2], np.nan)
        return np.asarray(self.focal * seen[:, :2] / depth[:, None], np.float64)

    def project_with_slopes(self, ground: npt.NDArray[np.complex128]) -> tuple[Points, Points]:
        """Map ground points (N,) as :meth:`project` does.

        Returns:
            (N, 2), NaN behind the camera, and (N, 2, 9) derivatives by :meth:`moved`'s step, zero
            there.
        """
        turn = rotation(self.heading, self.gravity)
        from_axis = ground - self._axis(turn)
        return by.projection(
            self._offset(ground, from_axis), from_axis, turn, self.focal, self.slope,
            float(self.camera[2]), self._derivatives(turn),
        )  # fmt: skip

    def slopes(self) -> by.Derivatives:
        """Return derivatives of gravity, rotation and axis by :meth:`moved`'s step."""
        return self._derivatives(rotation(self.heading, self.gravity))

    def _derivatives(self, turn: Points) -> by.Derivatives:
        return by.Derivatives.at(turn, self.heading, self.gravity, float(self.camera[2]))

    def _offset(
        self, ground: npt.NDArray[np.complex128], from_axis: npt.NDArray[np.complex128]
    ) -> Points:
        offset = np.empty((len(ground), 3))
        offset[:, 0], offset[:, 1] = ground.real - self.camera[0], ground.imag - self.camera[1]
        offset[:, 2] = self.slope[0] * from_axis.real + self.slope[1] * from_axis.imag
        offset[:, 2] -= self.camera[2]
        return offset

    def moved(self, step: Points) -> Pose:
        """Return the pose changed by a step (9,).

        Its elements: east, north, log height, heading, two tilts, log focal, two slopes.
        """
        tilt, _ = cv2.Rodrigues(np.array([step[4], step[5], 0.0]))
        gravity = tilt @ self.gravity
        camera = self.camera + np.array([step[0], step[1], 0.0])
        camera[2] *= math.exp(float(np.clip(step[2], -0.7, 0.7)))
        return Pose(
            camera, self.heading + float(step[3]), gravity / np.linalg.norm(gravity),
            self.focal * math.exp(float(np.clip(step[6], -0.7, 0.7))), self.slope + step[7:9],
        )  # fmt: skip


@dataclass(frozen=True)
class Known:
    """What holds before the pairs are looked at.

    Attributes:
        height: m, and its sigma as a share.
        gravity: unit vector, and its sigma along each axis, rad.
        focal_sigma: of the assumed focal length, as a share; 0 < sigma.
        map_sigma: m, error of the map itself at one spot.
    """

    height: float
    height_share: float
    gravity: Points
    gravity_sigma: float
    focal_sigma: float
    map_sigma: float

    def residuals(self, pose: Pose) -> Points:
        """Return (6,) deviations in sigmas."""
        tilt = cross(self.gravity, pose.gravity)
        return np.array([
            math.log(pose.camera[2] / self.height) / self.height_share,
            tilt[0] / self.gravity_sigma, tilt[1] / self.gravity_sigma,
            math.log(pose.focal) / self.focal_sigma, *(pose.slope / SLOPE_SIGMA),
        ])  # fmt: skip

    def slopes(self, pose: Pose) -> Points:
        """Return the derivatives (6, 9) of :meth:`residuals` by the pose's step."""
        result = np.zeros((6, by.ELEMENTS))
        result[0, by.HEIGHT] = 1.0 / self.height_share
        for index, change in enumerate(by.gravity_by_tilt(pose.gravity)):
            result[1:3, 4 + index] = cross(self.gravity, change)[:2] / self.gravity_sigma
        result[3, by.FOCAL] = 1.0 / self.focal_sigma
        result[4:6, by.SLOPE] = np.eye(2) / SLOPE_SIGMA
        return result


@dataclass(frozen=True, eq=False)
class Estimate:
    """A pose with its uncertainty.

    Attributes:
        pose: the most likely one.
        covariance: (9, 9) of :meth:`Pose.moved`'s step.
        rms_px: of the pairs, px of the tile.
        map_sigma: m, error of the map's own position.
    """

    pose: Pose
    covariance: Points
    rms_px: float
    map_sigma: float

    @property
    def axis_covariance(self) -> Points:
        """(2, 2) m^2, of where the axis meets the ground."""
        jacobian = self.pose.slopes().axis
        return self._with_map(jacobian @ self.covariance @ jacobian.T)

    @property
    def camera_covariance(self) -> Points:
        """(3, 3) m^2, of the camera: east, north, height."""
        jacobian = np.eye(3, by.ELEMENTS)
        jacobian[2, by.HEIGHT] = self.pose.camera[2]
        return self._with_map(jacobian @ self.covariance @ jacobian.T)

    @property
    def reach_sigma(self) -> float:
        """As a share of the pose's reach."""
        jacobian, gravity = np.zeros(by.ELEMENTS), self.pose.gravity
        jacobian[by.HEIGHT], jacobian[by.FOCAL] = 1.0, -1.0
        if gravity[2] > LEAST_DOWN:
            jacobian[by.TILT] = -1.5 * by.gravity_by_tilt(gravity)[:, 2] / gravity[2]
        return math.sqrt(float(jacobian @ self.covariance @ jacobian))

    @property
    def heading_sigma(self) -> float:
        """Rad."""
        return math.sqrt(float(self.covariance[3, 3]))

    def _with_map(self, covariance: Points) -> Points:
        result = (covariance + covariance.T) / 2.0
        result[[0, 1], [0, 1]] += self.map_sigma**2
        return np.asarray(result, np.float64)


def estimate(
    rays: Points,
    ground: npt.NDArray[np.complex128],
    start: Pose,
    known: Known,
    gsd: float,
    threshold_px: float,
) -> Estimate | None:
    """Find the pose that explains pairs and prior best.

    Args:
        rays: (N, 2) on the normalised image plane of the assumed lens, N >= 2.
        ground: (N,) their partners, m, map ENU.
        start: near the answer.
        known: the prior.
        gsd: of the tiles, m/px.
        threshold_px: residual, px of the tile, beyond which a pair loses its say.

    Returns:
        The estimate, or None where fewer than four pairs fit it.
    """
    to_px = start.camera[2] / (gsd * start.focal)

    def deviations(pose: Pose) -> tuple[Points, Points]:
        at, slopes = pose.project_with_slopes(ground)
        off = (at - rays) * to_px
        off[np.isnan(off)] = 1e3
        return off, slopes * to_px

    pose, scale = start, threshold_px / 2.0
    for _ in range(ITERATIONS):
        here, slopes = deviations(pose)
        length = np.linalg.norm(here, axis=1)
        scale = float(np.clip(1.2 * np.median(length), LEAST_RMS_PX, threshold_px / 2.0))
        weight = np.repeat(1.0 / (1.0 + (length / (2.0 * scale)) ** 2) ** 2, 2) / scale**2
        slope, prior_slope = slopes.reshape(-1, by.ELEMENTS), known.slopes(pose)
        weighted = (slope * weight[:, None]).T
        information = weighted @ slope + prior_slope.T @ prior_slope
        gradient = weighted @ here.ravel() + prior_slope.T @ known.residuals(pose)
        step = -np.linalg.solve(information + 1e-9 * np.diag(np.diag(information)), gradient)
        pose = pose.moved(step)
        if np.abs(slopes @ step).max() < SETTLED_PX:
            break
    here, slopes = deviations(pose)
    prior_slope = known.slopes(pose)
    length = np.linalg.norm(here, axis=1)
    close = length < threshold_px
    if np.count_nonzero(close) < LEAST_PAIRS:
        return None
    rms = float(np.sqrt(np.mean(length[close] ** 2)))
    covariance = _covariance(
        slopes[close], here[close],
        _cells(rays[close]), prior_slope.T @ prior_slope,
    )  # fmt: skip
    return Estimate(pose, covariance, rms, known.map_sigma)


def _covariance(
    slope: Points, residuals: Points, cells: npt.NDArray[np.int64], prior: Points
) -> Points:
    """Return the covariance (9, 9) of a fit whose residuals are alike within cells.

    Independent residuals give the sum of a cell's slopes a length that is known; by as much as it
    is longer, the pairs say less than their number.

    Args:
        slope: (N, 2, 9) of the residuals.
        residuals: (N, 2) px.
        cells: (N,) which cell each lies in.
        prior: (9, 9) information.
    """
    variance = max(float(np.mean(residuals**2)), LEAST_RMS_PX**2)
    flat = slope.reshape(-1, slope.shape[2])
    information = flat.T @ flat / variance
    inverse = np.linalg.pinv(information)
    names, number = np.unique(cells, return_inverse=True)
    scores = np.zeros((len(names), slope.shape[2]))
    np.add.at(scores, number, (slope * residuals[:, :, None]).sum(axis=1) / variance)
    alike = float(((scores @ inverse) * scores).sum())
    few = len(names) / max(len(names) - 1, 1)
    share = 1.0 / max(1.0, few * alike / len(information))
    return np.asarray(np.linalg.inv(information * share + prior), np.float64)


def _cells(rays: Points) -> npt.NDArray[np.int64]:
    """Return which cell of a grid over the rays each lies in."""
    least, span = rays.min(axis=0), np.maximum(np.ptp(rays, axis=0), 1e-9)
    cell = np.minimum(((rays - least) / span * CELLS).astype(np.int64), CELLS - 1)
    return np.asarray(cell[:, 0] * CELLS + cell[:, 1], np.int64)

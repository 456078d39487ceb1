"""Where points of one frame must be in the next, as its verified matches say.

The dominant plane's homography moves every point; in a scene with depth the parallax that verified
matches have against that plane is added, smoothed over the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from gps_denied_inference.pipeline import geometry as geo
from gps_denied_inference.pipeline.geometry import GeometricModel, ModelName, Points
from gps_denied_inference.pipeline.matcher import Matches
from gps_denied_inference.pipeline.refit import step
from gps_denied_inference.pipeline.residuals import lengths

ALL_ON_PLANE = 0.7
"""A scene is flat where a larger share of its verified matches lies on one plane."""

LEAST_TO_IMPROVE = 30
"""Points near the plane from which it is fitted anew."""

MOST_RELIEF = 12.0
"""Thresholds, by which a point may be looked for beside the plane: the pairs of tracks and features
within reach of each other grow with its square."""

EFFORT = 500
"""Samples that the search for the plane draws at most."""

CELLS = 16
"""Cells across the image's longer side in which parallax is gathered."""


MOST_STEPS = 4.0
"""A motion is not foreseen over a longer time than this many times the one it was seen in."""

SAME_STEP = 0.3
"""Share by which that time may differ where a fundamental matrix tells the motion: it says nothing
of how far."""


@dataclass(frozen=True, eq=False)
class Step:
    """The motion from one frame to a later one.

    Attributes:
        plane: (3, 3), of the dominant plane, from px of the earlier frame to px of the later one.
        model: (3, 3), that verified it: the later frame (query) against the earlier (reference).
        elapsed_ns: between the two.
        share: of the motion that it was foreseen from.
    """

    plane: Points
    model: Points
    elapsed_ns: int
    share: float = 1.0

    def lasting(self, elapsed_ns: int, model: ModelName) -> Step | None:
        """Return the step from the later frame on, if the motion lasts; None = not foreseen.

        Args:
            elapsed_ns: from the later frame to the one that is foreseen.
            model: what :attr:`model` is.
        """
        share = elapsed_ns / self.elapsed_ns
        if not share <= MOST_STEPS:
            return None
        whole, rest = int(share), share % 1.0
        plane = np.linalg.matrix_power(self.plane, whole)
        plane = plane @ (np.eye(3) + rest * (self.plane - np.eye(3)))
        plane = np.asarray(plane / plane[2, 2], np.float64)
        if model == "homography":
            return Step(plane, np.asarray(np.linalg.inv(plane), np.float64), elapsed_ns, share)
        if abs(share - 1.0) > SAME_STEP:
            return None
        return Step(plane, self.model, elapsed_ns, share)


class Motion:
    """The motion from an earlier frame to this one.

    Args:
        matches: points of this frame (query) against points of the earlier one (reference).
        model: what verified them.
        threshold: px, that it was verified with.
        expected: (3, 3), about what ``plane`` should be; None = nothing is known of it.

    Attributes:
        model: as given.
        plane: (3, 3), from px of the earlier frame to px of this one: of the dominant plane, or of
            standing still where there is none.
        flat: all of the scene is taken to lie on that plane.
        relief: px, how far from that plane a point may have moved: as far as all but one in twenty
            of the verified matches have, at least one threshold and at most :data:`MOST_RELIEF`.
    """

    def __init__(
        self,
        matches: Matches,
        model: GeometricModel,
        threshold: float,
        expected: Points | None = None,
    ) -> None:
        self.model, self._threshold = model, threshold
        self._field: npt.NDArray[np.float32] | None = None
        self.plane = np.eye(3)
        self.relief = threshold
        self.flat = model.type == "homography"
        if self.flat:
            self.plane = np.asarray(np.linalg.inv(model.matrix), np.float64)
            return
        verified = matches.select(model.inliers)
        start = None if expected is None else np.asarray(np.linalg.inv(expected), np.float64)
        plane = geo.verify(verified, "homography", threshold, start=start, effort=EFFORT)
        if plane is not None:
            self.plane = np.asarray(np.linalg.inv(plane.matrix), np.float64)
            # A fundamental matrix of flat ground is one of many: what disagrees with the ground
            # but not with it may have slipped along its epipolar line.
            self.flat = plane.inlier_count > ALL_ON_PLANE * verified.count
        anchors = verified.reference_points.astype(np.float64)
        parallax = verified.query_points - self.project(anchors)
        usual = float(np.percentile(lengths(parallax), 95.0))
        self.relief = min(max(self.relief, usual), MOST_RELIEF * threshold)
        if not self.flat:
            self._gather(anchors, parallax)

    def improve(self, before: Points, now: Points) -> None:
        """Fit the plane to points (N, 2) that were found more exactly than the matches lie."""
        off = lengths(self.project(before) - now) / self._threshold
        near = off < 1.0
        if np.count_nonzero(near) >= LEAST_TO_IMPROVE:
            plane = step(self.plane, "homography", before[near], now[near], off[near])
            if plane is not None:
                self.plane = plane / plane[2, 2]

    def project(self, points: Points) -> Points:
        """Move points (N, 2) px of the earlier frame with the plane."""
        return geo.project(self.plane, points)

    def parallax(self, points: Points) -> Points:
        """Return the (N, 2) px by which points near ``points`` leave the plane; 0 where flat."""
        if self._field is None or len(points) == 0:
            return np.zeros((len(points), 2))
        x, y = self._cells(points).T
        return np.asarray(self._field[y, x], np.float64)

    def agrees(self, before: Points, now: Points) -> npt.NDArray[np.bool_]:
        """Tell which points (N, 2) have moved as the verified model allows, (N,)."""
        if self.model.type == "homography":
            off = lengths(self.project(before) - now)
        else:
            off = geo.residuals_of(self.model.matrix, "fundamental", now, before)
        return np.asarray(off < self._threshold, np.bool_)

    def _gather(self, anchors: Points, parallax: Points) -> None:
        self._low = anchors.min(axis=0)
        self._size = max(float(np.ptp(anchors, axis=0).max()) / CELLS, 1.0)
        x, y = self._cells(anchors).T
        cell = y * CELLS + x
        sums = [np.bincount(cell, of, CELLS * CELLS) for of in (*parallax.T, np.ones(len(cell)))]
        table = np.stack(sums, axis=-1).reshape(CELLS, CELLS, 3)
        near = cv2.GaussianBlur(table, (0, 0), 0.8)
        far = cv2.GaussianBlur(table, (0, 0), 4.0)
        # Far cells speak only where near ones are silent.
        table = near + 1e-3 * far + 1e-9 * table.sum(axis=(0, 1))
        self._field = (table[..., :2] / table[..., 2:]).astype(np.float32)

    def _cells(self, points: Points) -> npt.NDArray[np.intp]:
        cells = (points - self._low) / self._size
        return np.asarray(np.clip(cells, 0, CELLS - 1), np.intp)

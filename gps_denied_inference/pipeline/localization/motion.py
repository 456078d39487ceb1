"""How the view over the ground moved from one frame to the next, without a map."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gps_denied_inference.pipeline.localization.similarity import Bounds, Similarity, search

LEAST_INLIERS = 12
LEAST_SHARE = 0.3
"""Of the pairs that must agree with one motion."""
POINT_SIGMA = 0.003
"""Residual of an inlier on the normalised image plane: two px at a focal length of 700 px."""
INDEPENDENT = 9
"""Residuals of relief and distortion are alike over a third of the frame each way."""
DRIFT = 0.03
"""Share of the way that tilt, relief and a height that is not quite known may add."""
TURN_SIGMA = math.radians(0.3)
SCALE_SIGMA = 0.01
"""Per step, at least: relief under the frame changes its scale from one to the next."""

_BOUNDS = Bounds(0.5, 2.0, math.pi)


@dataclass(frozen=True)
class Motion:
    """A similarity between normalised image planes, x right and y up.

    Attributes:
        similarity: from points of this frame to the frame before.
        shift_sigma: of its shift along each axis, on the normalised plane.
        turn_sigma: rad.
        scale_sigma: as a share.
        inliers: pairs that agree.
    """

    similarity: Similarity
    shift_sigma: float
    turn_sigma: float
    scale_sigma: float
    inliers: int

    @classmethod
    def between(
        cls, before: npt.NDArray[np.floating], now: npt.NDArray[np.floating]
    ) -> Motion | None:
        """Find the motion that most pairs agree with.

        Args:
            before, now: (M, 2) one point each per pair on the normalised image planes (x right, y
                down) of the frame before and of this one; NaN is left out.

        Returns:
            The motion, or None where too few pairs agree.
        """
        z, w = _plane(now), _plane(before)
        finite = np.isfinite(z) & np.isfinite(w)
        z, w = z[finite], w[finite]
        found = search(z, w, 2.0 * POINT_SIGMA, _BOUNDS)
        if found is None or found.count < max(LEAST_INLIERS, LEAST_SHARE * len(z)):
            return None
        inlying = z[found.inliers]
        spread = float(np.sqrt(np.mean(np.abs(inlying - inlying.mean()) ** 2)))
        centre = abs(complex(inlying.mean()))
        if spread < 10.0 * POINT_SIGMA:
            return None
        noise = max(found.rms, POINT_SIGMA / 2.0) / math.sqrt(min(found.count, INDEPENDENT))
        angular = noise / spread
        shift = math.hypot(noise, angular * centre)
        way = DRIFT * abs(found.similarity.b)
        return cls(
            found.similarity, math.hypot(shift, way), math.hypot(angular, TURN_SIGMA),
            math.hypot(angular, SCALE_SIGMA), found.count,
        )  # fmt: skip


def _plane(points: npt.NDArray[np.floating]) -> npt.NDArray[np.complex128]:
    flat = np.asarray(points, np.float64).reshape(-1, 2)
    return np.asarray(flat[:, 0] - 1j * flat[:, 1], np.complex128)

"""What localization says of one frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]

REASONS = (
    "too_few_features", "no_candidates", "no_place", "too_few_inliers", "by_chance", "ambiguous",
    "in_one_spot", "neighbours_disagree", "implausible_height", "implausible_tilt",
)  # fmt: skip
"""Why there is no fix."""


@dataclass(frozen=True, eq=False)
class FrameFix:
    """Where one frame was taken.

    Attributes:
        east, north: m, map ENU, where the optical axis meets the ground.
        covariance: (2, 2) m^2 of that point, never zero.
        map_sigma: m, along each axis: the part of ``covariance`` that all fixes on this map have in
            common.
        camera: (3,) m: east and north in map ENU, height above ground; None where the prior has no
            attitude, without which a tilt cannot be told from a shift.
        camera_covariance: (3, 3) m^2; None with ``camera``.
        heading: of the image's top, rad clockwise from north.
        heading_sigma: rad.
        reach: m on the ground per unit of the normalised image plane, at the axis: height over
            focal length for a camera that looks straight down.
        reach_sigma: as a share of ``reach``.
        inliers: keypoints that agree.
        runner_up: keypoints that agree with the second best place.
        tiles: ids of the tiles that lead here, the best first.
        rays: (N, 2) inliers on the normalised image plane.
        ground: (N, 2) m, map ENU, their partners.
        rms: m, residual of the inliers on the ground.
        confidence: -log10 of how many such places chance would give in the search.
    """

    east: float
    north: float
    covariance: Points
    camera: Points | None
    camera_covariance: Points | None
    heading: float
    heading_sigma: float
    reach: float
    reach_sigma: float
    inliers: int
    runner_up: int
    tiles: tuple[int, ...]
    rays: Points
    ground: Points
    rms: float
    confidence: float
    map_sigma: float = 0.0

    @property
    def at(self) -> complex:
        """East and north as one complex number."""
        return complex(self.east, self.north)


@dataclass(frozen=True, eq=False)
class Attempt:
    """What became of one frame.

    Attributes:
        fix: the place that is believed; None where there is none.
        reason: why there is none, one of :data:`REASONS`; empty with a fix.
        places: the best places, believed or not, best first; what a flight may decide between.
        candidates: tiles that were matched.
        features: of the frame.
        timings: s per stage: view, extract, candidates, vote, match, solve.
    """

    fix: FrameFix | None
    reason: str
    places: tuple[FrameFix, ...] = ()
    candidates: int = 0
    features: int = 0
    timings: Mapping[str, float] = field(default_factory=dict)

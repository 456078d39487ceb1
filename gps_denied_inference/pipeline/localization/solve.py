"""From a place to a fix: the camera's pose, and whether it can be."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gps_denied_inference.pipeline.localization.acceptance import (
    Rules,
    confidence,
    refusal,
)
from gps_denied_inference.pipeline.localization.fix import FrameFix
from gps_denied_inference.pipeline.localization.placing import THRESHOLD_PX, Place, nearest_each
from gps_denied_inference.pipeline.localization.plan import Plan
from gps_denied_inference.pipeline.localization.pose import Estimate, Pose, estimate
from gps_denied_inference.pipeline.localization.prior import MOST_TILT, Prior

REFINED_PX = 0.75 * THRESHOLD_PX
"""px of the tile: residual of an inlier once perspective is accounted for."""
LEAST_PAIRS = 6
MOST_SOLVED = 3
"""Places that are refined where the best one is not believed: a flight may decide between them."""


def judge(
    found: Sequence[Place], searched: int, todo: Plan, prior: Prior, rules: Rules
) -> tuple[tuple[FrameFix, ...], str]:
    """Refine places and say why the best one is not believed.

    Args:
        found: places, best first, at least one.
        searched: pairs of view and tile that were matched.
        todo: what was searched.
        prior: what is known.
        rules: of acceptance.

    Returns:
        The best place alone and an empty reason where it is believed; else the places that a camera
        could see so, best first, and why the best one is not believed.
    """
    best = _solve(found[0], todo, searched, _runner_up(found[0], found), prior, 2)
    if best is None:
        reason = "implausible_tilt"
    else:
        reason = refusal(found[0], found[1:], searched, rules) or ""
        if not reason and not _plausible(best, todo):
            reason = "implausible_height"
    if best is not None and not reason:
        return (best,), ""
    solved = [best] + [
        _solve(place, todo, searched, _runner_up(place, found), prior, 1)
        for place in found[1:MOST_SOLVED]
    ]
    return tuple(fix for fix in solved if fix is not None), reason


def _runner_up(place: Place, found: Sequence[Place]) -> int:
    return max((other.count for other in found if other is not place), default=0)


def _solve(
    place: Place, todo: Plan, searched: int, runner_up: int, prior: Prior, rounds: int
) -> FrameFix | None:
    """Refine a place with perspective; None where no camera could see it so.

    In each round the pairs that the pose explains replace those of the round before.
    """
    sight = place.sight
    known = todo.known(sight.height)
    rays = sight.view.rays(sight.features.keypoints)
    start, indices, ground = _start(place, todo), place.indices, place.ground
    found: Estimate | None = None
    for _ in range(rounds):
        found = estimate(rays[indices], ground, start, known, place.gsd, REFINED_PX)
        if found is None or found.pose.gravity[2] < math.cos(MOST_TILT):
            return None
        rows = _agreeing(place, rays, found.pose)
        if len(rows) < LEAST_PAIRS:
            break
        start, indices, ground = found.pose, place.pairs.indices[rows], place.pairs.ground[rows]
    assert found is not None
    return _as_fix(found, place, rays[indices], ground, searched, runner_up, prior, todo.map_sigma)


def _agreeing(place: Place, rays: npt.NDArray[np.float64], pose: Pose) -> npt.NDArray[np.int64]:
    """Return the rows of the place's pairs that a pose explains, one of each keypoint."""
    to_px = pose.camera[2] / (place.gsd * pose.focal)
    off = pose.project(place.pairs.ground) - rays[place.pairs.indices]
    residuals = np.nan_to_num(np.linalg.norm(off, axis=1) * to_px, nan=1e9)
    return nearest_each(place.pairs.indices, residuals, REFINED_PX)


def _start(place: Place, todo: Plan) -> Pose:
    """Return the pose that a similarity of the view means."""
    height = place.sight.height * place.similarity.scale
    heading = place.sight.heading - place.similarity.angle
    lean = Pose(np.array([0.0, 0.0, height]), heading, todo.gravity, 1.0).axis
    camera = np.array([place.at.real - lean.real, place.at.imag - lean.imag, height])
    return Pose(camera, heading, todo.gravity, 1.0)


def _plausible(fix: FrameFix, todo: Plan) -> bool:
    """Tell whether the height is still the prior's after refinement."""
    heights = [assumed.height for assumed in todo.assumptions]
    least = 0.9 * todo.bounds.least_scale * min(heights)
    return least <= fix.reach <= 1.1 * todo.bounds.most_scale * max(heights)


def _as_fix(
    found: Estimate,
    place: Place,
    rays: npt.NDArray[np.float64],
    ground: npt.NDArray[np.complex128],
    searched: int,
    runner_up: int,
    prior: Prior,
    map_sigma: float,
) -> FrameFix:
    pose, knows_tilt = found.pose, prior.down is not None
    return FrameFix(
        east=pose.axis.real,
        north=pose.axis.imag,
        covariance=found.axis_covariance,
        camera=pose.camera if knows_tilt else None,
        camera_covariance=found.camera_covariance if knows_tilt else None,
        heading=math.remainder(pose.heading, 2.0 * math.pi),
        heading_sigma=found.heading_sigma,
        reach=pose.reach,
        reach_sigma=found.reach_sigma,
        inliers=place.count,
        runner_up=runner_up,
        tiles=place.tiles,
        rays=rays,
        ground=np.column_stack([ground.real, ground.imag]),
        rms=found.rms_px * place.gsd,
        confidence=confidence(place, searched),
        map_sigma=map_sigma,
    )

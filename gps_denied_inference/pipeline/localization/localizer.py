"""A position from one frame."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from gps_denied_inference.errors import InputMismatchError
from gps_denied_inference.pipeline.localization import candidates as sieve
from gps_denied_inference.pipeline.localization.acceptance import (
    Rules,
    log_false_alarms,
    refusal,
)
from gps_denied_inference.pipeline.localization.fix import Attempt, FrameFix
from gps_denied_inference.pipeline.localization.placing import (
    THRESHOLD_PX,
    Pairing,
    Place,
    Sight,
    nearest_each,
    pair,
    places,
    uncovered,
)
from gps_denied_inference.pipeline.localization.plan import Assumption, Optics, Plan, plan
from gps_denied_inference.pipeline.localization.pose import Estimate, Pose, estimate
from gps_denied_inference.pipeline.localization.prior import Prior
from gps_denied_inference.pipeline.localization.tiles import TileSource
from gps_denied_inference.pipeline.localization.view import Image, view_from_above
from gps_denied_inference.pipeline.rotations import ExtractorLike, MatcherLike

LEAST_FEATURES = 20
"""Keypoints of a frame below which nothing is matched."""
MOST_TILT = math.radians(60.0)
REFINED_PX = 0.75
"""Residual of an inlier once perspective is accounted for, as a share of the similarity's."""


@dataclass(frozen=True)
class Search:
    """How far the search goes.

    Attributes:
        voters: tiles at most whose features vote.
        matched: pairs of view and tile at most that the matcher gets.
        neighbours: further tiles around the best place.
        rules: of acceptance.
    """

    voters: int = 256
    matched: int = 8
    neighbours: int = 3
    rules: Rules = field(default_factory=Rules)


class FrameLocalizer:
    """Finds where on a map a frame was taken.

    Not thread-safe.

    Args:
        source: the map.
        extractor: the network that made the map's features; its input size is the view's.
        matcher: for that network.
        size: width and height of the extractor's input, px.
        describe: makes the map's kind of global descriptor; None leaves it out.
        search: how far the search goes.

    Raises:
        InputMismatchError: from :meth:`locate`, for a map made with another network.
    """

    def __init__(
        self,
        source: TileSource,
        extractor: ExtractorLike,
        matcher: MatcherLike,
        size: tuple[int, int],
        describe: sieve.Describe | None = None,
        search: Search | None = None,
    ) -> None:
        self._source = source
        self._extractor = extractor
        self._matcher = matcher
        self._size = size
        self._describe = describe
        self._search = search or Search()

    def locate(self, frame: Image, prior: Prior, optics: Optics) -> Attempt:
        """Find where a frame was taken.

        Args:
            frame: uint8 (H, W) or (H, W, 3), as the extractor takes it.
            prior: what is known.
            optics: the lens.

        Raises:
            InputMismatchError: the map was made with another network.
            FrameError, InferenceError, DeviceOutOfMemoryError: from extractor and matcher.
        """
        timings: dict[str, float] = {}
        todo = plan(prior, optics, self._source.info)
        sights = self._sights(frame, todo, optics, timings)
        features = max((sight.features.count for sight in sights), default=0)
        if features < LEAST_FEATURES:
            return Attempt(None, "too_few_features", features=features, timings=timings)
        begin = time.perf_counter()
        ids = sieve.narrow(
            self._source, todo.level, todo.region, sights, self._describe, self._search.voters
        )
        tiles = (self._source.load(int(id)) for id in ids)
        chosen = sieve.shortlist(sights, tiles, self._search.matched)
        timings["candidates"] = time.perf_counter() - begin
        if not chosen:
            return Attempt(None, "no_candidates", features=features, timings=timings)
        begin = time.perf_counter()
        pairings = [pair(sight, tile, self._matcher, todo.bounds) for sight, tile in chosen]
        found = places(pairings, todo.bounds)
        if found:
            pairings += self._around(found[0], pairings, todo)
            found = places(pairings, todo.bounds)
        timings["match"] = time.perf_counter() - begin
        if not found:
            return Attempt(None, "no_place", (), len(pairings), features, timings)
        begin = time.perf_counter()
        fixes, reason = self._judge(found, len(pairings), todo, prior)
        timings["solve"] = time.perf_counter() - begin
        fix = None if reason else fixes[0]
        return Attempt(fix, reason, fixes, len(pairings), features, timings)

    def _sights(
        self, frame: Image, todo: Plan, optics: Optics, timings: dict[str, float]
    ) -> list[Sight]:
        info, sights = self._source.info, []
        timings["view"] = timings["extract"] = 0.0
        for assumed in todo.assumptions:
            begin = time.perf_counter()
            view = view_from_above(
                frame, optics.camera, assumed.height, assumed.heading, todo.gravity,
                info.levels[todo.level], self._size,
            )  # fmt: skip
            seen = time.perf_counter()
            features = view.extract(self._extractor, info.tile_px)
            timings["view"] += seen - begin
            timings["extract"] += time.perf_counter() - seen
            if features.model_sha256 != info.model_sha256:
                raise InputMismatchError(
                    f"the map was made with '{info.model}' ({info.model_sha256[:12]}), frames are "
                    f"seen by '{features.model}' ({features.model_sha256[:12]}): prepare the map "
                    "with the same model"
                )
            sights.append(Sight.of(view, features, assumed.height, assumed.heading))
        return sights

    def _around(self, best: Place, pairings: Sequence[Pairing], todo: Plan) -> list[Pairing]:
        """Match the best place's neighbours that were not matched with its view."""
        matched = {p.tile.id for p in pairings if p.sight is best.sight}
        ids, centres = self._source.centres(todo.level)
        distance = np.hypot(centres[:, 0] - best.at.real, centres[:, 1] - best.at.imag)
        near = [int(id) for id in ids[np.argsort(distance, kind="stable")[:9]]]
        tiles = [self._source.load(id) for id in near if id not in matched]
        tiles = [tile for tile in tiles if not uncovered(best, tile)][: self._search.neighbours]
        return [pair(best.sight, tile, self._matcher, todo.bounds) for tile in tiles]

    def _judge(
        self, found: Sequence[Place], searched: int, todo: Plan, prior: Prior
    ) -> tuple[tuple[FrameFix, ...], str]:
        fixes = []
        for index, place in enumerate(found):
            runner_up = max((p.count for p in found if p is not place), default=0)
            fixes.append(self._solve(place, todo, searched, runner_up, prior))
            if index == 0 and fixes[0] is None:
                return (), "implausible_tilt"
        best = fixes[0]
        reason = refusal(found[0], found[1:], searched, self._search.rules) or ""
        if not reason and best is not None and not _plausible(best, found[0], todo):
            reason = "implausible_height"
        return tuple(fix for fix in fixes if fix is not None), reason

    def _solve(
        self, place: Place, todo: Plan, searched: int, runner_up: int, prior: Prior
    ) -> FrameFix | None:
        """Refine a place with perspective; None where no camera could see it so."""
        known, sight = todo.known(place.sight.height), place.sight
        start = _start(place, sight, todo)
        indices, ground = place.indices, place.ground
        found: Estimate | None = None
        threshold = THRESHOLD_PX * REFINED_PX
        for _ in range(2):
            rays = sight.view.rays(sight.features.keypoints[indices])
            found = estimate(rays, ground, start, known, place.gsd, threshold)
            if (
                found is None
                or found.pose.gravity[2] < math.cos(MOST_TILT)
                or found.pose.camera[2] <= 0.0
            ):
                return None
            every = sight.view.rays(sight.features.keypoints[place.pairs.indices])
            to_px = found.pose.camera[2] / (place.gsd * found.pose.focal)
            off = np.linalg.norm(found.pose.project(place.pairs.ground) - every, axis=1) * to_px
            rows = nearest_each(place.pairs.indices, np.nan_to_num(off, nan=1e9), threshold)
            if len(rows) < 6:
                break
            indices, ground, start = place.pairs.indices[rows], place.pairs.ground[rows], found.pose
        assert found is not None
        return _as_fix(found, place, indices, ground, searched, runner_up, prior)


def _start(place: Place, sight: Sight, todo: Plan) -> Pose:
    """Return the pose that a similarity of the view means."""
    assumed = Assumption(sight.height, sight.heading)
    height = assumed.height * place.similarity.scale
    heading = assumed.heading - place.similarity.angle
    upright = Pose(np.array([0.0, 0.0, height]), heading, todo.gravity, 1.0)
    lean = upright.axis
    camera = np.array([place.at.real - lean.real, place.at.imag - lean.imag, height])
    return Pose(camera, heading, todo.gravity, 1.0)


def _plausible(fix: FrameFix, place: Place, todo: Plan) -> bool:
    """Tell whether the scale is still the prior's after refinement."""
    expected = place.sight.height
    return todo.bounds.least_scale * 0.9 <= fix.reach / expected <= todo.bounds.most_scale * 1.1


def _as_fix(
    found: Estimate,
    place: Place,
    indices: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
    ground: np.ndarray[tuple[int, ...], np.dtype[np.complex128]],
    searched: int,
    runner_up: int,
    prior: Prior,
) -> FrameFix:
    pose, sight = found.pose, place.sight
    knows_tilt = prior.down is not None
    reach_sigma = found.reach_sigma
    return FrameFix(
        east=pose.axis.real,
        north=pose.axis.imag,
        covariance=found.axis_covariance,
        camera=pose.camera if knows_tilt else None,
        camera_covariance=found.camera_covariance if knows_tilt else None,
        heading=math.remainder(pose.heading, 2.0 * math.pi),
        heading_sigma=found.heading_sigma,
        reach=pose.reach,
        reach_sigma=reach_sigma,
        inliers=place.count,
        runner_up=runner_up,
        tiles=place.tiles,
        rays=sight.view.rays(sight.features.keypoints[indices]),
        ground=np.column_stack([ground.real, ground.imag]),
        rms=found.rms_px * place.gsd,
        log_false_alarms=log_false_alarms(place, searched),
    )

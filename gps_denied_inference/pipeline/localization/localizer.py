"""A position from one frame."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from gps_denied_inference.pipeline.localization.acceptance import (
    Rules,
    confidence,
    is_sure,
)
from gps_denied_inference.pipeline.localization.candidates import Describe
from gps_denied_inference.pipeline.localization.fix import Attempt, FrameFix
from gps_denied_inference.pipeline.localization.hunt import Hunt, Tools
from gps_denied_inference.pipeline.localization.placing import Place
from gps_denied_inference.pipeline.localization.plan import Optics, Plan, plan
from gps_denied_inference.pipeline.localization.prior import Prior
from gps_denied_inference.pipeline.localization.solve import judge
from gps_denied_inference.pipeline.localization.tiles import TileSource
from gps_denied_inference.pipeline.localization.view import Image
from gps_denied_inference.pipeline.matcher import SeveralMatcher
from gps_denied_inference.pipeline.rotations import ExtractorLike

LEAST_FEATURES = 20
"""Keypoints of a frame below which nothing is matched."""


@dataclass(frozen=True)
class Search:
    """How far the search goes.

    Attributes:
        voters: tiles at most whose features vote.
        matched: pairs of view and tile at most that the matcher gets at once.
        neighbours: further tiles around a place.
        second_looks: places at most that a frame is turned and scaled for.
        map_sigma: m, error of the map as a whole, for the covariance, besides the one pixel of the
            tiles that it errs from spot to spot. Satellite pictures are off by metres where
            orthophotos are not.
        rules: of acceptance.
    """

    voters: int = 256
    matched: int = 8
    neighbours: int = 3
    second_looks: int = 3
    map_sigma: float = 0.0
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
        threads: CPU threads that vote for tiles, 0 = as many as there are cores.
    """

    def __init__(
        self,
        source: TileSource,
        extractor: ExtractorLike,
        matcher: SeveralMatcher,
        size: tuple[int, int],
        describe: Describe | None = None,
        search: Search | None = None,
        threads: int = 1,
    ) -> None:
        threads = threads or len(os.sched_getaffinity(0))
        voters = ThreadPoolExecutor(threads, "vote") if threads > 1 else None
        self._tools = Tools(source, extractor, matcher, size, describe, voters)
        self._search = search or Search()

    def close(self) -> None:
        """End the threads that vote."""
        if self._tools.voters is not None:
            self._tools.voters.shutdown()

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
        search = self._search
        if not prior.looks_down:
            return Attempt(None, "implausible_tilt")
        todo = plan(prior, optics, self._tools.source.info, search.map_sigma)
        hunt = Hunt(self._tools, frame, optics, todo)
        if not hunt.look(todo.assumptions, search.voters, search.matched, self._is_sure):
            return self._nothing(hunt, "no_candidates")
        if hunt.features < LEAST_FEATURES:
            return self._nothing(hunt, "too_few_features")
        fixes, reason = self._follow(hunt, todo, prior)
        if reason and todo.further:
            hunt.look(todo.further, search.voters, search.matched, self._is_sure)
            fixes, reason = self._follow(hunt, todo, prior)
        fix = None if reason else fixes[0]
        return Attempt(fix, reason, fixes, len(hunt.pairings), hunt.features, hunt.timings)

    def _follow(self, hunt: Hunt, todo: Plan, prior: Prior) -> tuple[tuple[FrameFix, ...], str]:
        """Look around the best places until one is sure, and judge what was found."""
        search = self._search
        found = hunt.places()
        if found:
            hunt.around(found[0], search.neighbours)
            found = hunt.places()
        if found and not self._is_sure(found):
            for place in found[: search.second_looks]:
                hunt.look_again(place, search.neighbours + 1)
            found = hunt.places()
        if not found:
            return (), "no_place"
        begin = time.perf_counter()
        verdict = judge(found, len(hunt.pairings), todo, prior, search.rules)
        hunt.timings["solve"] += time.perf_counter() - begin
        return verdict

    def _is_sure(self, found: list[Place]) -> bool:
        """Tell whether the best place leaves nothing to look for."""
        rules = self._search.rules
        if not found or found[0].count < rules.least_inliers:
            return False
        second = max((place.count for place in found[1:]), default=0)
        return is_sure(found[0], second, confidence(found[0], 1), rules)

    @staticmethod
    def _nothing(hunt: Hunt, reason: str) -> Attempt:
        return Attempt(None, reason, (), len(hunt.pairings), hunt.features, hunt.timings)

"""The search for one frame: views are made, tiles chosen, matched, and looked at again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gps_denied_inference.errors import InputMismatchError
from gps_denied_inference.pipeline.contrast import Contrast
from gps_denied_inference.pipeline.localization import candidates as sieve
from gps_denied_inference.pipeline.localization.placing import (
    Pairing,
    Place,
    Sight,
    pair_all,
    places,
    uncovered,
)
from gps_denied_inference.pipeline.localization.plan import Assumption, Optics, Plan
from gps_denied_inference.pipeline.localization.similarity import Bounds
from gps_denied_inference.pipeline.localization.tiles import TileSource
from gps_denied_inference.pipeline.localization.view import Image, Points, view_from_above
from gps_denied_inference.pipeline.matcher import SeveralMatcher
from gps_denied_inference.pipeline.rotations import ExtractorLike

ALIGNED_TURN = math.radians(4.0)
ALIGNED_SCALE = 1.06
"""A view that lies on its place to within these has nothing to gain from a second look."""
SECOND_LOOK = Bounds(1.0 / 1.25, 1.25, math.radians(20.0))
"""Of the similarity once a view was made for its place."""
STAGES = ("view", "extract", "candidates", "vote", "match", "solve")
PAIRS_AT_ONCE = 4
"""Pairs that a matcher is to take at a time where that saves time."""
NEAREST = 9
"""Tiles around a place: half-overlapping ones that the frame may lie on."""


@dataclass(frozen=True, eq=False)
class Tools:
    """What every search needs.

    Attributes:
        source: the map.
        extractor: the network that made the map's features.
        matcher: for that network.
        size: width and height of the extractor's input, px.
        describe: makes the map's kind of global descriptor; None leaves it out.
        voters: threads that vote for tiles side by side; None = the search's own does.
    """

    source: TileSource
    extractor: ExtractorLike
    matcher: SeveralMatcher
    size: tuple[int, int]
    describe: sieve.Describe | None
    voters: Executor | None


class Hunt:
    """The search for one frame.

    Attributes:
        timings: s per stage.
        pairings: what was matched so far.
        features: most keypoints that a view had.
    """

    def __init__(self, tools: Tools, frame: Image, optics: Optics, todo: Plan) -> None:
        self._tools = tools
        self._frame = frame
        self._optics = optics
        self._todo = todo
        self._contrast = _contrast(frame, optics, todo, tools)
        self.timings = dict.fromkeys(STAGES, 0.0)
        self.pairings: list[Pairing] = []
        self.features = 0

    def look(
        self,
        assumptions: Sequence[Assumption],
        voters: int,
        matched: int,
        enough: Callable[[list[Place]], bool],
    ) -> int:
        """See the frame under each assumption, and match the views with the tiles most voted for.

        Args:
            assumptions: heights and headings.
            voters: tiles at most whose features vote.
            matched: pairs of view and tile at most that are matched.
            enough: asked after every few pairs whether the places found so far will do.

        Returns:
            How many pairs of view and tile there were to match.
        """
        sights = [self._see(assumed, self._todo.bounds) for assumed in assumptions]
        self.features = max([self.features, *(sight.features.count for sight in sights)])
        with self._timed("candidates"):
            ids = sieve.narrow(
                self._tools.source, self._todo.level, self._todo.region, sights,
                self._tools.describe, voters,
            )  # fmt: skip
        with self._timed("vote"):
            tiles = (self._tools.source.load(int(id)) for id in ids)
            chosen = sieve.shortlist(sights, tiles, matched, self._tools.voters)
        for start in range(0, len(chosen), PAIRS_AT_ONCE):
            if start and enough(self.places()):
                break
            with self._timed("match"):
                now = chosen[start : start + PAIRS_AT_ONCE]
                self.pairings += pair_all(now, self._tools.matcher)
        return len(chosen)

    def places(self) -> list[Place]:
        """Return the places found so far, best first."""
        with self._timed("match"):
            return places(self.pairings)

    def around(self, place: Place, most: int) -> None:
        """Match a place's view with the tiles around that it was not matched with."""
        self._match_around(place.sight, place, most)

    def look_again(self, place: Place, most: int) -> bool:
        """See the frame as it would lie on a place, and match that view there.

        Returns:
            Whether it did: a view that lies there already shows nothing new.
        """
        similarity, sight = place.similarity, place.sight
        off = max(similarity.scale, 1.0 / similarity.scale)
        if abs(similarity.angle) < ALIGNED_TURN and off < ALIGNED_SCALE:
            return False
        better = Assumption(sight.height * similarity.scale, sight.heading - similarity.angle)
        self._match_around(self._see(better, SECOND_LOOK), place, most)
        return True

    def _match_around(self, sight: Sight, place: Place, most: int) -> None:
        source = self._tools.source
        matched = {p.tile.id for p in self.pairings if p.sight is sight}
        ids, centres = source.centres(self._todo.level)
        distance = np.hypot(centres[:, 0] - place.at.real, centres[:, 1] - place.at.imag)
        near = [int(id) for id in ids[np.argsort(distance, kind="stable")[:NEAREST]]]
        with self._timed("match"):
            tiles = [source.load(id) for id in near if id not in matched]
            tiles = [tile for tile in tiles if not uncovered(place, tile)][:most]
            self.pairings += pair_all([(sight, tile) for tile in tiles], self._tools.matcher)

    def _see(self, assumed: Assumption, bounds: Bounds) -> Sight:
        info = self._tools.source.info
        with self._timed("view"):
            view = view_from_above(
                self._frame, self._optics.camera, assumed.height, assumed.heading,
                self._todo.gravity, info.levels[self._todo.level], self._tools.size,
            )  # fmt: skip
        with self._timed("extract"):
            features = view.extract(self._tools.extractor, info.tile_px, self._evident)
        if features.model_sha256 != info.model_sha256:
            raise InputMismatchError(
                f"the map was made with '{info.model}' ({info.model_sha256[:12]}), frames are "
                f"seen by '{features.model}' ({features.model_sha256[:12]}): prepare the map "
                "with the same model"
            )
        return Sight.of(view, features, assumed.height, assumed.heading, bounds)

    def _evident(self, rays: Points) -> npt.NDArray[np.bool_]:
        return self._contrast.at(self._optics.camera.project(rays))

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.timings[stage] += time.perf_counter() - begin


def _contrast(frame: Image, optics: Optics, todo: Plan, tools: Tools) -> Contrast:
    """Measure the frame itself: a view has averaged its noise away."""
    gsd = tools.source.info.levels[todo.level]
    least = min((a.height for a in todo.assumptions), default=1.0)
    rows, columns = frame.shape[:2]
    share = min(1.0, least / (gsd * float(optics.camera.matrix[0, 0])))
    return Contrast(frame, max(1, round(columns * share)), max(1, round(rows * share)))

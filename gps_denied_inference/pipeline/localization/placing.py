"""Where a view may lie: matched tile by tile, what agrees across tiles taken together."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gps_denied_inference.pipeline.features import Features
from gps_denied_inference.pipeline.localization.similarity import (
    Agreement,
    Bounds,
    Complex,
    Similarity,
    fit,
    search,
)
from gps_denied_inference.pipeline.localization.tiles import Tile, ground_points
from gps_denied_inference.pipeline.localization.view import Points, View
from gps_denied_inference.pipeline.matcher import Matches, SeveralMatcher

THRESHOLD_PX = 4.0
"""px of the tile: greatest residual of an inlier. Relief and a camera that is not quite upright
bend a similarity by more than the keypoints' own error."""


@dataclass(frozen=True, eq=False)
class Sight:
    """A view with its features.

    Attributes:
        view: the frame, north-up under one assumed heading.
        features: in px of the view.
        plane: (N,) complex, m, of the keypoints from the axis, x east and y north.
        height: above ground, m, that was assumed.
        heading: rad clockwise from north, that was assumed.
        bounds: of the similarity from ``plane`` to the map.
    """

    view: View
    features: Features
    plane: Complex
    height: float
    heading: float
    bounds: Bounds

    @classmethod
    def of(
        cls, view: View, features: Features, height: float, heading: float, bounds: Bounds
    ) -> Sight:
        """Bring the keypoints to metres."""
        offset = (np.asarray(features.keypoints, np.float64) - view.axis) * view.gsd
        return cls(view, features, offset[:, 0] - 1j * offset[:, 1], height, heading, bounds)

    @functools.cached_property
    def covered(self) -> Complex:
        """A grid of points of the view's plane, m, that the frame covers."""
        inside = self.view.inside
        rows, columns = np.mgrid[0 : inside.shape[0] : 32, 0 : inside.shape[1] : 32]
        rows, columns = rows.ravel(), columns.ravel()
        keep = inside[rows, columns] > 0
        axis, gsd = self.view.axis, self.view.gsd
        plane = (columns[keep] - axis[0]) * gsd - 1j * (rows[keep] - axis[1]) * gsd
        return np.asarray(plane, np.complex128)


@dataclass(frozen=True, eq=False)
class Pairing:
    """What one tile's matches say.

    Attributes:
        sight: the view that was matched.
        tile: its partner.
        indices: (M,) keypoints of the view in pairs.
        ground: (M,) complex, m, their partners in map ENU.
        agreement: of most pairs; None where there is none.
    """

    sight: Sight
    tile: Tile
    indices: npt.NDArray[np.int64]
    ground: Complex
    agreement: Agreement | None

    @property
    def count(self) -> int:
        """Number of agreeing pairs."""
        return self.agreement.count if self.agreement is not None else 0


@dataclass(frozen=True, eq=False)
class Pairs:
    """Keypoints of a view and their partners on the map.

    Attributes:
        indices: (M,) keypoints of the view; one may have partners on several tiles.
        ground: (M,) complex, m, map ENU.
    """

    indices: npt.NDArray[np.int64]
    ground: Complex

    @property
    def keypoints(self) -> int:
        """Number of different keypoints."""
        return len(np.unique(self.indices))


@dataclass(frozen=True, eq=False)
class Place:
    """A place that tiles speak for, each keypoint of the view counted once.

    Attributes:
        sight: the view.
        similarity: from the view's plane to map ENU.
        indices: (N,) agreeing keypoints.
        ground: (N,) complex, m, their partners.
        pairs: all pairs of the tiles that the place touches, agreeing or not.
        tiles: ids of the tiles whose own pairs lead here.
        silent: ids of tiles that the frame covers for a good part and whose pairs lead elsewhere.
        best_tile_count: inliers of its best tile alone.
        gsd: of its tiles, m/px.
    """

    sight: Sight
    similarity: Similarity
    indices: npt.NDArray[np.int64]
    ground: Complex
    pairs: Pairs
    tiles: tuple[int, ...]
    silent: tuple[int, ...]
    best_tile_count: int
    gsd: float

    @property
    def count(self) -> int:
        """Number of agreeing keypoints."""
        return len(self.indices)

    @property
    def at(self) -> complex:
        """Where the optical axis meets the ground, map ENU."""
        return self.similarity.b

    @property
    def keypoints(self) -> Points:
        """(N, 2) px of the view."""
        return np.asarray(self.sight.features.keypoints[self.indices], np.float64)


def pair_all(views: Sequence[tuple[Sight, Tile]], matcher: SeveralMatcher) -> list[Pairing]:
    """Match views with tiles, each looking for the similarity that most of its pairs agree with."""
    several = matcher.match_several([(sight.features, tile.features) for sight, tile in views])
    return [
        _paired(sight, tile, matches) for (sight, tile), matches in zip(views, several, strict=True)
    ]


def _paired(sight: Sight, tile: Tile, matches: Matches) -> Pairing:
    ground = ground_points(tile, matches.reference_points)
    partners = ground[:, 0] + 1j * ground[:, 1]
    indices = matches.query_indices.astype(np.int64)
    agreement = search(sight.plane[indices], partners, THRESHOLD_PX * tile.gsd, sight.bounds)
    return Pairing(sight, tile, indices, partners, agreement)


def places(pairings: Sequence[Pairing], most: int = 5) -> list[Place]:
    """Gather pairings into places that lie apart, best supported first."""
    left = sorted((p for p in pairings if p.count >= 3), key=lambda p: -p.count)
    found: list[Place] = []
    while left and len(found) < most + 2:
        seed = left.pop(0)
        assert seed.agreement is not None
        if any(same(seed.sight, seed.agreement.similarity, place) for place in found):
            continue
        found.append(_gather(seed, [p for p in pairings if p.sight is seed.sight]))
    return sorted(found, key=lambda place: -place.count)[:most]


def apart(sight: Sight) -> float:
    """Return the distance, m, from which on two places are different ones."""
    return 0.15 * float(max(sight.view.inside.shape)) * sight.view.gsd


def same(sight: Sight, similarity: Similarity, place: Place) -> bool:
    """Tell whether a similarity of a view means a place that is already known."""
    near = abs(similarity.b - place.at) < apart(sight)
    return near and _turn_between(sight, similarity, place) < math.radians(30.0)


def _turn_between(sight: Sight, similarity: Similarity, place: Place) -> float:
    ours = sight.heading - similarity.angle
    theirs = place.sight.heading - place.similarity.angle
    return abs(math.remainder(ours - theirs, 2.0 * math.pi))


def _gather(seed: Pairing, pairings: Iterable[Pairing]) -> Place:
    """Add to a tile's agreeing pairs those that other tiles have for the same place."""
    assert seed.agreement is not None
    sight = seed.sight
    threshold = THRESHOLD_PX * seed.tile.gsd
    covered = sight.covered
    similarity = seed.agreement.similarity
    near = [p for p in pairings if p is seed or _overlap(covered, similarity, p.tile) > 0.1]
    indices = np.concatenate([p.indices for p in near])
    ground = np.concatenate([p.ground for p in near])
    best = np.zeros(0, np.int64)
    for _ in range(3):
        residuals = np.abs(similarity(sight.plane[indices]) - ground)
        best = nearest_each(indices, residuals, threshold)
        fitted = fit(sight.plane[indices[best]], ground[best])
        if fitted is None or not sight.bounds.holds(fitted.a):
            break
        similarity = fitted
    agreeing, silent = [], []
    for p in near:
        own = p.agreement
        if own is not None and abs(own.similarity.b - similarity.b) < apart(sight) / 2.0:
            agreeing.append(p.tile.id)
        elif _overlap(covered, similarity, p.tile) > 0.5:
            silent.append(p.tile.id)
    return Place(
        sight, similarity, indices[best], ground[best], Pairs(indices, ground),
        tuple(agreeing), tuple(silent), seed.count, seed.tile.gsd,
    )  # fmt: skip


def nearest_each(
    indices: npt.NDArray[np.int64], residuals: npt.NDArray[np.float64], threshold: float
) -> npt.NDArray[np.int64]:
    """Return the rows below the threshold, the best one of each keypoint."""
    rows = np.flatnonzero(residuals < threshold)
    rows = rows[np.argsort(residuals[rows], kind="stable")]
    _, first = np.unique(indices[rows], return_index=True)
    return np.asarray(rows[np.sort(first)], np.int64)


def uncovered(place: Place, tile: Tile) -> bool:
    """Tell whether the frame, lying at this place, hardly shows a tile."""
    return _overlap(place.sight.covered, place.similarity, tile) < 0.3


def _overlap(covered: Complex, similarity: Similarity, tile: Tile) -> float:
    """Return the share of the frame that lies on a tile."""
    if len(covered) == 0:
        return 0.0
    at = similarity(covered)
    on = (at.real >= tile.east) & (at.real <= tile.east + tile.width * tile.gsd)
    on &= (at.imag <= tile.north) & (at.imag >= tile.north - tile.height * tile.gsd)
    return float(on.mean())

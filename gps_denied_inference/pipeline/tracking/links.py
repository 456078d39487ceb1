"""Which features of a frame go on with which tracks.

A matcher proposes, geometry decides. From the verified matches comes a motion field that says, for
any point of the earlier frame, where it must be now: the dominant plane's homography, and for a
scene with depth also the parallax that neighbouring points have against that plane. Then

* a proposed link is kept where it lies within the gate of its prediction, and
* a track that the matcher lost goes on in a free feature within the gate, if the two descriptors
  are alike at all: the place has been narrowed down so far that looks need not decide alone.

The gate is a share of the matches' threshold. Both start from the track's filtered position, not
from its last one: a link that is off by less than the gate can still be a neighbouring corner, and
a few of those in a row would walk an id away. The filter remembers the way so far, so that the walk
shows as a lasting offset and ends the track.

Detectors miss a point now and then. A track that geometry has confirmed once coasts through up to
:data:`MAX_MISSED` such frames on the motion field and goes on where the point is found again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gps_denied_inference.pipeline import geometry as geo
from gps_denied_inference.pipeline.features import Features, FloatArray
from gps_denied_inference.pipeline.geometry import GeometricModel, Points
from gps_denied_inference.pipeline.matcher import Matches

NEIGHBOURS = 7
"""Verified matches whose median parallax speaks for a point between them."""

PARALLAX_TOLERANCE = 0.2
"""Neighbours at other depths move alike to within this share of their parallax."""

GATE_SHARE = 0.35
"""Of the matches' threshold, for a long track. Both ends of a match are noisy; the mean of n
detections against the next one has sqrt((1 + 1/n) / 2) of that noise, so young tracks get more."""

GUIDED_COSINE = 0.85
"""Descriptors less alike than this are not joined, however well the place fits."""

COASTING_GATE = 0.5
"""Of the gate of other tracks: a prediction that was not corrected for frames deserves less room,
for as its error grows so does the chance that something else lies there."""

SLOWEST_GAIN = 0.1
"""Of the position filter: parallax of real relief is followed within about ten frames."""


ALL_ON_PLANE = 0.7
"""A scene is flat where a larger share of its verified matches lies on one plane."""

MAX_MISSED = 3
"""Frames in a row in which a track may go without being detected."""


@dataclass(frozen=True, eq=False)
class Tracks:
    """All tracks alive after a frame: its N features in their order, then those that coast.

    Attributes:
        ids: (T,) uint64.
        ages: (T,) uint32, frames since the track began.
        missed: (T,) uint32, frames since it was last in a frame's features; 0 for the first N.
        followed: (T,) uint32, frames in a row in which it was followed without being detected.
        smoothed: (T, 2) px, filtered positions.
        descriptors: (T, D), as last detected.
    """

    ids: npt.NDArray[np.uint64]
    ages: npt.NDArray[np.uint32]
    missed: npt.NDArray[np.uint32]
    followed: npt.NDArray[np.uint32]
    smoothed: Points
    descriptors: FloatArray

    @property
    def count(self) -> int:
        """T, the number of tracks."""
        return len(self.ids)

    @classmethod
    def fresh(cls, features: Features, ids: npt.NDArray[np.uint64]) -> Tracks:
        """Begin one track at each feature."""
        zero = np.zeros(features.count, np.uint32)
        smoothed = features.keypoints.astype(np.float64)
        return cls(ids, zero, zero, zero, smoothed, features.descriptors)


@dataclass(frozen=True, eq=False)
class Links:
    """Features that continue tracks.

    Attributes:
        here: (L,) int32, into this frame's features.
        there: (L,) int32, into the earlier tracks.
        smoothed: (L, 2) px, filtered positions in this frame.
        predicted: (T, 2) px, where every earlier track must be now; None where nothing says so.
        reach: (T,) px, how far from there a track may go on; None where ``predicted`` is.
        flat: the motion field is that of one plane.
        followed: (L,) uint32, see :class:`Tracks`.
    """

    here: npt.NDArray[np.int32]
    there: npt.NDArray[np.int32]
    smoothed: Points
    predicted: Points | None
    reach: npt.NDArray[np.float64] | None
    flat: bool
    followed: npt.NDArray[np.uint32]

    @classmethod
    def of(
        cls,
        features: Features,
        earlier: Tracks,
        here: npt.NDArray[np.int32],
        there: npt.NDArray[np.int32],
        predicted: Points,
        reach: npt.NDArray[np.float64],
        flat: bool,
        followed: npt.NDArray[np.uint32] | None = None,
    ) -> Links:
        """Join features and tracks, and filter their positions."""
        # A running mean at first, then a slow filter.
        gain = np.maximum(1.0 / (earlier.ages[there] + 2.0), SLOWEST_GAIN)
        now = predicted[there] + gain[:, None] * (features.keypoints[here] - predicted[there])
        if followed is None:
            followed = np.zeros(len(here), np.uint32)
        return cls(here, there, now, predicted, reach, flat, followed)

    def advance(self, features: Features, earlier: Tracks, ids: npt.NDArray[np.uint64]) -> Tracks:
        """Return the tracks after this frame.

        Args:
            ids: (N,) uint64, one for each feature: the track's where it continues one, else fresh.
        """
        ages = np.zeros(features.count, np.uint32)
        ages[self.here] = earlier.ages[self.there] + 1
        smoothed = features.keypoints.astype(np.float64)
        smoothed[self.here] = self.smoothed
        followed = np.zeros_like(ages)
        followed[self.here] = self.followed
        now = Tracks(ids, ages, np.zeros_like(ages), followed, smoothed, features.descriptors)
        if self.predicted is None:
            return now
        coasts = (earlier.ages > 0) & (earlier.missed < MAX_MISSED)
        coasts[self.there] = False
        size = (features.width, features.height)
        coasts &= ((self.predicted >= 0.0) & (self.predicted < size)).all(axis=1)
        return Tracks(
            np.concatenate([now.ids, earlier.ids[coasts]]),
            np.concatenate([now.ages, earlier.ages[coasts] + 1]),
            np.concatenate([now.missed, earlier.missed[coasts] + 1]),
            np.concatenate([now.followed, earlier.followed[coasts]]),
            np.concatenate([now.smoothed, self.predicted[coasts]]),
            np.concatenate([now.descriptors, earlier.descriptors[coasts]]),
        )


class MotionField:
    """Where points of the earlier frame must be in this one.

    Args:
        matches: this frame's features (query) against the earlier frame's (reference).
        model: what verified them.
        threshold: px, that it was verified with.
    """

    def __init__(self, matches: Matches, model: GeometricModel, threshold: float) -> None:
        self._anchors: Points | None = None
        if model.type == "homography":
            self._plane = _inverse(model.matrix)
            return
        # Points on the dominant plane suffice to find it; where there is none, parallax is counted
        # from standing still.
        verified = matches.select(model.inliers)
        plane = geo.verify(verified, "homography", threshold)
        self._plane = np.eye(3) if plane is None else _inverse(plane.matrix)
        if plane is not None and plane.inlier_count > ALL_ON_PLANE * verified.count:
            # A fundamental matrix of flat ground is one of many: what disagrees with the ground
            # but not with it has merely slipped along its epipolar line.
            return
        self._anchors = verified.reference_points.astype(np.float64)
        self._parallax = verified.query_points - geo.project(self._plane, self._anchors)

    @property
    def flat(self) -> bool:
        """True where all of the scene is taken to lie on one plane."""
        return self._anchors is None

    def predict(self, points: Points) -> tuple[Points, npt.NDArray[np.float64]]:
        """Return where points (N, 2) px of the earlier frame are now, and how far that is off.

        Returns:
            (N, 2) px, and (N,) px to add to any gate: 0 for a plane.
        """
        predicted = geo.project(self._plane, points)
        if self._anchors is None or len(points) == 0:
            return predicted, np.zeros(len(points))
        distance = _squared_distances(points, self._anchors)
        k = min(NEIGHBOURS, len(self._anchors))
        nearest = np.argpartition(distance, k - 1, axis=1)[:, :k]
        usual = np.median(self._parallax[nearest], axis=1)
        return predicted + usual, PARALLAX_TOLERANCE * np.linalg.norm(usual, axis=1)


def find_links(
    features: Features,
    earlier: Tracks,
    matches: Matches,
    model: GeometricModel,
    threshold: float,
) -> Links:
    """Decide which tracks go on, and where.

    Args:
        features: of this frame.
        earlier: the tracks after the earlier frame.
        matches: ``features`` (query) against the earlier frame's (reference).
        model: what verified ``matches``.
        threshold: px, that they were verified with.
    """
    predicted, reach, flat = expect(earlier, matches, model, threshold)
    proposed = matches.reference_indices
    offset = np.linalg.norm(matches.query_points - predicted[proposed], axis=1)
    keep = model.inliers & (offset < reach[proposed])
    here, there = matches.query_indices[keep], proposed[keep]
    more_here, more_there = _guided(features, earlier, predicted, reach, here, there)
    here = np.concatenate([here, more_here]).astype(np.int32)
    there = np.concatenate([there, more_there]).astype(np.int32)
    return Links.of(features, earlier, here, there, predicted, reach, flat)


def expect(
    earlier: Tracks, matches: Matches, model: GeometricModel, threshold: float
) -> tuple[Points, npt.NDArray[np.float64], bool]:
    """Return where the earlier tracks must be now and how far from there each may go on.

    Args:
        matches, model, threshold: what says so, see :class:`MotionField`.

    Returns:
        (T, 2) px, (T,) px, and whether all of the scene is taken to lie on one plane.
    """
    gate = GATE_SHARE * threshold * np.sqrt(1.0 + 1.0 / (earlier.ages + 1.0))
    field = MotionField(matches, model, threshold)
    predicted, slack = field.predict(earlier.smoothed)
    reach = np.where(earlier.missed > 0, COASTING_GATE, 1.0) * gate + slack
    return predicted, reach, field.flat


def _guided(
    features: Features,
    earlier: Tracks,
    predicted: Points,
    reach: npt.NDArray[np.float64],
    here: npt.NDArray[np.int32],
    there: npt.NDArray[np.int32],
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    free_here, free_there = _others(here, features.count), _others(there, earlier.count)
    there_too, here_too, _ = find_again(features, earlier, predicted, reach, free_there, free_here)
    return here_too, there_too


def find_again(
    features: Features,
    earlier: Tracks,
    places: Points,
    reach: npt.NDArray[np.float64],
    tracks: npt.NDArray[np.intp],
    free: npt.NDArray[np.intp],
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Join tracks and features that lie within reach and are each other's most alike.

    Args:
        places: (T, 2) px, where the earlier tracks are in this frame.
        reach: (T,) px.
        tracks: into the earlier tracks, those that may be joined.
        free: into ``features``, likewise.

    Returns:
        Joined tracks and features, and all features that lie within reach of a track.
    """
    a, b = _within_reach(places[tracks], reach[tracks], features.keypoints[free])
    a, b = tracks[a], free[b]
    near = np.unique(b)
    cosine = np.einsum("ij,ij->i", earlier.descriptors[a], features.descriptors[b])
    order = np.argsort(-cosine, kind="stable")
    order = order[cosine[order] >= GUIDED_COSINE]
    # The first in falling order of likeness is each side's best: mutual where both say so.
    a, b = a[order], b[order]
    best_a = np.zeros(len(order), np.bool_)
    best_b = np.zeros(len(order), np.bool_)
    best_a[np.unique(a, return_index=True)[1]] = True
    best_b[np.unique(b, return_index=True)[1]] = True
    mutual = best_a & best_b
    return a[mutual], b[mutual], near


def _within_reach(
    centres: Points, reach: npt.NDArray[np.float64], points: FloatArray
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the pairs (index of a centre, index of a point) no farther apart than its reach.

    Sorted by x, each centre's candidates lie in one run: no table of all distances is made.
    """
    order = np.argsort(points[:, 0])
    x = points[order, 0].astype(np.float64)
    first = np.searchsorted(x, centres[:, 0] - reach, "left")
    length = np.searchsorted(x, centres[:, 0] + reach, "right") - first
    centre = np.repeat(np.arange(len(centres)), length)
    start = np.repeat(first - (np.cumsum(length) - length), length)
    point = order[start + np.arange(len(centre))]
    near = np.linalg.norm(centres[centre] - points[point], axis=1) < reach[centre]
    return centre[near], point[near]


def _others(indices: npt.NDArray[np.int32], count: int) -> npt.NDArray[np.intp]:
    rest = np.ones(count, np.bool_)
    rest[indices] = False
    return np.flatnonzero(rest)


def _inverse(matrix: Points) -> Points:
    return np.asarray(np.linalg.inv(matrix), np.float64)


def _squared_distances(
    a: npt.NDArray[np.floating], b: npt.NDArray[np.floating]
) -> npt.NDArray[np.float64]:
    """Return (len(a), len(b)) px^2, by the binomial: one small matrix product."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    product = a @ b.T
    product *= -2.0
    product += np.sum(a**2, axis=1)[:, None]
    product += np.sum(b**2, axis=1)[None, :]
    return np.asarray(product, np.float64)

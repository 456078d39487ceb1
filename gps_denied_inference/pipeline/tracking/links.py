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

import numpy as np
import numpy.typing as npt

from gps_denied_inference.pipeline.features import Features, FloatArray
from gps_denied_inference.pipeline.geometry import GeometricModel, Points
from gps_denied_inference.pipeline.matcher import Matches
from gps_denied_inference.pipeline.residuals import lengths
from gps_denied_inference.pipeline.tracking.motion import Motion
from gps_denied_inference.pipeline.tracking.tracks import Links, Tracks

PARALLAX_TOLERANCE = 0.2
"""Neighbours at other depths move alike to within this share of their parallax."""

GATE_SHARE = 0.35
"""Of the matches' threshold, for a long track. Both ends of a match are noisy; the mean of n
detections against the next one has sqrt((1 + 1/n) / 2) of that noise, so young tracks get more."""

COASTING_GATE = 0.5
"""Of the gate of other tracks: a prediction that was not corrected for frames deserves less room,
for as its error grows so does the chance that something else lies there."""

FEW = 20
"""Centres that are held against every point."""

LEAST_CELL = 2.0
"""px, of the cells in which points are looked up."""

SLOWEST_GAIN = 0.1
"""Of the position filter."""


def find_links(
    features: Features,
    earlier: Tracks,
    matches: Matches,
    model: GeometricModel,
    threshold: float,
    least_cosine: float,
) -> Links:
    """Decide which tracks go on, and where.

    Args:
        features: of this frame.
        earlier: the tracks after the earlier frame.
        matches: ``features`` (query) against the earlier frame's (reference).
        model: what verified ``matches``.
        threshold: px, that they were verified with.
        least_cosine: descriptors less alike than this are not joined where the matcher did not,
            however well the place fits.
    """
    motion = Motion(matches, model, threshold)
    on_plane, parallax = motion.project(earlier.places), motion.parallax(earlier.places)
    predicted = on_plane + parallax
    gate = GATE_SHARE * threshold * np.sqrt(1.0 + 1.0 / (earlier.ages + 1.0))
    reach = np.where(earlier.missed > 0, COASTING_GATE, 1.0) * gate
    reach += PARALLAX_TOLERANCE * lengths(parallax)
    proposed = matches.reference_indices
    offset = lengths(matches.query_points - predicted[proposed])
    keep = model.inliers & (offset < reach[proposed])
    here, there = matches.query_indices[keep], proposed[keep]
    free_here, free_there = _others(here, features.count), _others(there, earlier.count)
    more_there, more_here, _ = find_again(
        features, earlier, predicted, reach, free_there, least_cosine, free_here
    )
    here = np.concatenate([here, more_here]).astype(np.int32)
    there = np.concatenate([there, more_there]).astype(np.int32)
    # A running mean at first, then a slow filter.
    gain = np.maximum(1.0 / (earlier.ages[there] + 2.0), SLOWEST_GAIN)[:, None]
    places = predicted[there] + gain * (features.keypoints[here] - predicted[there])
    followed = np.zeros(len(here), np.uint32)
    parallax = places - on_plane[there]
    return Links(motion.plane, model.matrix, here, there, places, parallax, followed, predicted)


def find_again(
    features: Features,
    earlier: Tracks,
    places: Points,
    reach: npt.NDArray[np.float64] | float,
    tracks: npt.NDArray[np.intp],
    least_cosine: float,
    free: npt.NDArray[np.intp] | None = None,
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Join tracks and features that lie within reach and are each other's most alike.

    Args:
        places: (T, 2) px, where the earlier tracks are in this frame.
        reach: (T,) px, or one for all.
        tracks: into the earlier tracks, those that may be joined.
        least_cosine: descriptors less alike than this are not joined.
        free: into ``features``, those that may be joined; None = all.

    Returns:
        Joined tracks and features, and all features that lie within reach of a track.
    """
    points = features.keypoints if free is None else features.keypoints[free]
    around = reach if isinstance(reach, float) else reach[tracks]
    a, b = _within_reach(places[tracks], around, points)
    a, b = tracks[a], b if free is None else free[b]
    near = np.zeros(features.count, np.bool_)
    near[b] = True
    cosine = np.einsum("ij,ij->i", earlier.descriptors[a], features.descriptors[b])
    order = np.argsort(-cosine, kind="stable")
    order = order[cosine[order] >= least_cosine]
    # The first in falling order of likeness is each side's best: mutual where both say so.
    a, b = a[order], b[order]
    mutual = _first(a, earlier.count) & _first(b, features.count)
    return a[mutual], b[mutual], np.flatnonzero(near)


def _first(values: npt.NDArray[np.intp], count: int) -> npt.NDArray[np.bool_]:
    """Tell which values, below ``count``, have not been there before."""
    index, first = np.arange(len(values)), np.empty(count, np.intp)
    first[values[::-1]] = index[::-1]
    return np.asarray(first[values] == index, np.bool_)


def _within_reach(
    centres: Points, reach: npt.NDArray[np.float64] | float, points: FloatArray
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the pairs (index of a centre, index of a point) no farther apart than its reach.

    Sorted by cells as wide as the longest reach, each centre's candidates lie in three runs.
    """
    if not len(centres) or not len(points):
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    if len(centres) <= FEW:
        off = centres[:, None] - points
        near = np.hypot(off[..., 0], off[..., 1]) < np.reshape(reach, (-1, 1))
        centre, point = np.nonzero(near)
        return centre, point
    side = max(float(np.max(reach)), LEAST_CELL)
    low, high = (np.array([f(points[:, 0]), f(points[:, 1])]) for f in (np.min, np.max))
    low, high = low - side, high + side
    columns, rows = (int(n) + 2 for n in (high - low) / side)
    at = ((points - low) / side).astype(np.intp)
    cell = at[:, 1] * columns + at[:, 0]
    order = np.argsort(cell, kind="stable")
    begins = np.concatenate([[0], np.cumsum(np.bincount(cell, minlength=columns * rows))])
    # Those beyond the margin have no point within reach.
    seen = np.flatnonzero(
        (centres[:, 0] >= low[0]) & (centres[:, 1] >= low[1])
        & (centres[:, 0] < high[0]) & (centres[:, 1] < high[1])
    )  # fmt: skip
    at = ((centres[seen] - low) / side).astype(np.intp)
    cell = (at[:, 1] + np.array([[-1], [0], [1]])).clip(0, rows - 1) * columns + at[:, 0]
    first = begins[np.maximum(cell - 1, 0)].ravel()
    length = begins[np.minimum(cell + 2, columns * rows)].ravel() - first
    centre = np.repeat(np.tile(seen, 3), length)
    start = np.repeat(first - (np.cumsum(length) - length), length)
    point = order[start + np.arange(len(centre))]
    away = lengths(centres[centre] - points[point])
    near = away < (reach if isinstance(reach, float) else reach[centre])
    return centre[near], point[near]


def _others(indices: npt.NDArray[np.int32], count: int) -> npt.NDArray[np.intp]:
    rest = np.ones(count, np.bool_)
    rest[indices] = False
    return np.flatnonzero(rest)

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
    reach += PARALLAX_TOLERANCE * np.linalg.norm(parallax, axis=1)
    proposed = matches.reference_indices
    offset = np.linalg.norm(matches.query_points - predicted[proposed], axis=1)
    keep = model.inliers & (offset < reach[proposed])
    here, there = matches.query_indices[keep], proposed[keep]
    free_here, free_there = _others(here, features.count), _others(there, earlier.count)
    more_there, more_here, _ = find_again(
        features, earlier, predicted, reach, free_there, free_here, least_cosine
    )
    here = np.concatenate([here, more_here]).astype(np.int32)
    there = np.concatenate([there, more_there]).astype(np.int32)
    # A running mean at first, then a slow filter.
    gain = np.maximum(1.0 / (earlier.ages[there] + 2.0), SLOWEST_GAIN)[:, None]
    places = predicted[there] + gain * (features.keypoints[here] - predicted[there])
    followed = np.zeros(len(here), np.uint32)
    return Links(here, there, places, places - on_plane[there], followed, predicted)


def find_again(
    features: Features,
    earlier: Tracks,
    places: Points,
    reach: npt.NDArray[np.float64],
    tracks: npt.NDArray[np.intp],
    free: npt.NDArray[np.intp],
    least_cosine: float,
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Join tracks and features that lie within reach and are each other's most alike.

    Args:
        places: (T, 2) px, where the earlier tracks are in this frame.
        reach: (T,) px.
        tracks: into the earlier tracks, those that may be joined.
        free: into ``features``, likewise.
        least_cosine: descriptors less alike than this are not joined.

    Returns:
        Joined tracks and features, and all features that lie within reach of a track.
    """
    a, b = _within_reach(places[tracks], reach[tracks], features.keypoints[free])
    a, b = tracks[a], free[b]
    near = np.unique(b)
    cosine = np.einsum("ij,ij->i", earlier.descriptors[a], features.descriptors[b])
    order = np.argsort(-cosine, kind="stable")
    order = order[cosine[order] >= least_cosine]
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

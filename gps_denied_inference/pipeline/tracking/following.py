"""Following tracks in the image itself.

A detector looks at each frame afresh: XFeat finds only every second or third of a frame's points
again in the next one, and its whole-pixel peaks wander by a pixel or two. So the verified matches
only tell where to look; the place of a track is where the image shows its patch (:mod:`patches`),
whatever the shape of the scene.

Geometry still decides: a point counts as followed only where its way agrees with the model that
verified the matches, and with its own parallax so far. Nor may a track live by its patch alone:
without a detection of like descriptor it ends after ``max_followed`` frames in a row.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from gps_denied_inference.pipeline import geometry as geo
from gps_denied_inference.pipeline.features import Features, FloatArray
from gps_denied_inference.pipeline.geometry import GeometricModel, ModelName, Points
from gps_denied_inference.pipeline.matcher import Matches
from gps_denied_inference.pipeline.residuals import lengths, project
from gps_denied_inference.pipeline.tracking.flow import View
from gps_denied_inference.pipeline.tracking.links import find_again
from gps_denied_inference.pipeline.tracking.motion import Motion, Step
from gps_denied_inference.pipeline.tracking.patches import Patches, inside
from gps_denied_inference.pipeline.tracking.tracks import Links, Tracks

PARALLAX_TOLERANCE = 0.5
"""From frame to frame a point's parallax stays the same to within this share of it, and the
threshold's share below."""

SCOUTS = 200
"""Tracks that are found before the others."""

CLEAR = 50
"""Pairs of a sample that agree, with which no others are needed beside it."""

LEAST_FOUND = 0.6
"""Of the scouts in view, where a motion is foreseen: with fewer it is another one, or another
scene. Each is found near where it is looked for or not at all, so that those found always agree;
how many are found is what tells."""

GATE_SHARE = 0.5
"""Of the matches' threshold."""


def carry(
    features: Features,
    earlier: Tracks,
    motion: Motion,
    before: View,
    now: View,
    threshold: float,
    max_followed: int,
) -> tuple[Features, Links]:
    """Go on with all tracks in a frame in which nothing was detected.

    Args:
        features: of the earlier frame.
        motion: as :func:`follow` takes it.

    Returns:
        As :func:`follow`.
    """
    nothing = dataclasses.replace(
        features,
        keypoints=features.keypoints[:0],
        scores=features.scores[:0],
        descriptors=features.descriptors[:0],
    )
    return _go_on(nothing, earlier, motion, before, now, threshold, max_followed, 1.0)


def follow(
    features: Features,
    earlier: Tracks,
    motion: Motion,
    before: View,
    now: View,
    threshold: float,
    max_followed: int,
    least_cosine: float,
) -> tuple[Features, Links]:
    """Find the earlier tracks in this frame's image, and join its detections to them.

    Args:
        features: of this frame, as detected.
        earlier: the tracks after the earlier frame, with patches.
        motion: from the earlier frame to this one, see :func:`foreseen` and :func:`scouted`.
        before, now: the two views.
        threshold: px, of the verification.
        max_followed: frames in a row that a track may go without a detection.
        least_cosine: a detection less alike than this is no track's.

    Returns:
        The frame's features with the followed points among them, at most ``now.room`` and in order
        of falling score, and the links into them. A followed point lies where the image shows it;
        where a detection belongs to it, it has that detection's score and descriptor, else its
        last ones. Detections within ``threshold`` of a followed point begin no tracks.
    """
    return _go_on(features, earlier, motion, before, now, threshold, max_followed, least_cosine)


def foreseen(
    earlier: Tracks,
    step: Step,
    model: ModelName,
    before: View,
    now: View,
    threshold: float,
) -> Motion | None:
    """Find some of the tracks where they must be if the motion went on as it was.

    Args:
        earlier: the tracks after the earlier frame, with patches.
        step: the motion expected from the earlier frame to this one.
        model: verifies what was found.
        before, now: the two views.
        threshold: px, of the verification.

    Returns:
        The motion that those found agree on; None where too few are found, or agree.
    """
    assert earlier.patches is not None
    # Those seen once have no parallax of their own yet.
    some = np.flatnonzero(earlier.ages > 0)
    some = some[:: max(1, len(some) // SCOUTS)]
    places = earlier.places[some]
    ahead = project(step.plane, places) + step.share * earlier.parallax[some]
    patches = earlier.patches.select(some).moved(_stretch(step.plane, places, before, now))
    start = now.to_grey(ahead)
    found, ok = patches.find(now.smooth, start)
    looked_for = inside(now.smooth, start) & patches.present
    if np.count_nonzero(ok) < LEAST_FOUND * np.count_nonzero(looked_for):
        return None
    here, there, rows = now.to_received(found[ok]), places[ok], some[ok].astype(np.int32)
    agreed = geo.improved(here, there, model, threshold, step.model)
    if agreed is None or agreed.inlier_count < CLEAR:
        return None
    likeness = np.ones(len(rows), np.float32)
    pairs = Matches(rows, rows, likeness, here.astype(np.float32), there.astype(np.float32))
    motion = Motion(pairs, agreed, threshold, step.plane)
    motion.improve(there, here)
    return motion


def scouted(
    earlier: Tracks,
    matches: Matches,
    model: GeometricModel,
    before: View,
    now: View,
    threshold: float,
) -> Motion:
    """Return the motion that verified matches show, improved by some of the tracks.

    Args:
        earlier: the tracks after the earlier frame, with patches.
        matches: points of this frame (query) and of the earlier one (reference).
        model: what verified ``matches``.
        before, now: the two views.
        threshold: px, of the verification.
    """
    assert earlier.patches is not None
    motion = Motion(matches, model, threshold)
    some = slice(None, None, max(1, earlier.count // SCOUTS))
    places, parallax = earlier.places[some], earlier.parallax[some].copy()
    young = earlier.ages[some] == 0
    parallax[young] = motion.parallax(places[young])
    patches = earlier.patches.select(some).moved(_stretch(motion.plane, places, before, now))
    found, ok = patches.find(now.smooth, now.to_grey(motion.project(places) + parallax))
    motion.improve(places[ok], now.to_received(found[ok]))
    return motion


def _go_on(
    features: Features,
    earlier: Tracks,
    motion: Motion,
    before: View,
    now: View,
    threshold: float,
    max_followed: int,
    least_cosine: float,
) -> tuple[Features, Links]:
    assert earlier.patches is not None
    young = earlier.ages == 0
    parallax = earlier.parallax.copy()
    parallax[young] = motion.parallax(earlier.places[young])
    on_plane = motion.project(earlier.places)
    predicted = on_plane + parallax
    patches = earlier.patches.moved(_stretch(motion.plane, earlier.places, before, now))
    found, ok = _find(features, earlier, predicted, patches, motion.relief, now, least_cosine)
    # Relief shows from a track's second frame on; then it only changes as the camera's speed does.
    reach = GATE_SHARE * threshold + PARALLAX_TOLERANCE * lengths(parallax)
    reach[young] = np.maximum(reach[young], motion.relief)
    ok &= lengths(found - predicted) < reach
    ok &= motion.agrees(earlier.places, found)
    detected_as, taken = _detections(features, earlier, found, ok, threshold, least_cosine)

    detected = np.flatnonzero(detected_as >= 0)
    lost = np.flatnonzero(ok & (detected_as < 0) & (earlier.followed < max_followed))
    # Where there is no room for all, those that have lasted longest go on.
    longest = np.argsort(-earlier.ages[lost].astype(np.int64), kind="stable")
    lost = lost[longest[: max(now.room - len(detected), 0)]]
    tracks = np.concatenate([detected, lost])
    fresh = np.flatnonzero(~taken)[: max(now.room - len(tracks), 0)]
    chosen = detected_as[detected]

    scores = np.concatenate([features.scores[chosen], earlier.scores[lost], features.scores[fresh]])
    order = np.argsort(-scores, kind="stable")
    at = np.empty_like(order)
    at[order] = np.arange(len(order))
    parts = np.split(at, [len(detected), len(tracks)])
    keypoints = np.empty((len(order), 2), np.float32)
    keypoints[at] = np.concatenate([found[tracks], features.keypoints[fresh]])
    descriptors = np.empty((len(order), features.descriptors.shape[1]), np.float32)
    descriptors[parts[0]] = features.descriptors[chosen]
    descriptors[parts[1]] = earlier.descriptors[lost]
    descriptors[parts[2]] = features.descriptors[fresh]
    followed = np.zeros(len(tracks), np.uint32)
    followed[len(detected) :] = earlier.followed[lost] + 1
    moved = dataclasses.replace(
        features,
        keypoints=keypoints,
        scores=scores[order],
        descriptors=descriptors,
    )
    links = Links(
        plane=motion.plane,
        model=motion.model.matrix,
        here=at[: len(tracks)].astype(np.int32),
        there=tracks.astype(np.int32),
        places=found[tracks],
        parallax=found[tracks] - on_plane[tracks],
        followed=followed,
        predicted=predicted,
        patches=patches,
    )
    return moved, links


def _find(
    features: Features,
    earlier: Tracks,
    predicted: Points,
    patches: Patches,
    relief: float,
    now: View,
    least_cosine: float,
) -> tuple[Points, npt.NDArray[np.bool_]]:
    """Find all tracks' points: (T, 2) px, and which were found."""
    start = now.to_grey(predicted)
    found, ok = patches.find(now.smooth, start)
    # A point that left the plane too far to be found from there may be where it was detected.
    lost = np.flatnonzero(~ok & inside(now.smooth, start))
    if features.count and len(lost):
        there, here, _ = find_again(features, earlier, predicted, relief, lost, least_cosine)
        if len(there):
            start = now.to_grey(features.keypoints[here])
            found[there], ok[there] = patches.select(there).find(now.smooth, start)
    return now.to_received(found), ok


def _stretch(plane: Points, places: Points, before: View, now: View) -> FloatArray:
    """Return how the grey image turns and scales around points (T, 2), (T, 2, 2).

    Args:
        plane: (3, 3), from px of the earlier frame to px of this one.
    """
    plane = now.received_to_grey @ plane @ np.linalg.inv(before.received_to_grey)
    (a, b, _), (c, d, _), (g, h, i) = plane.tolist()
    points = before.to_grey(places).astype(np.float64)
    moved = project(plane, points)
    x, y = moved[:, 0], moved[:, 1]
    depth = 1.0 / (g * points[:, 0] + h * points[:, 1] + i)
    turned = np.empty((len(points), 2, 2), np.float32)
    turned[:, 0, 0], turned[:, 0, 1] = (a - g * x) * depth, (b - h * x) * depth
    turned[:, 1, 0], turned[:, 1, 1] = (c - g * y) * depth, (d - h * y) * depth
    return turned


def _detections(
    features: Features,
    earlier: Tracks,
    found: Points,
    ok: npt.NDArray[np.bool_],
    threshold: float,
    least_cosine: float,
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
    """Join detections to the tracks found near them.

    Returns:
        (T,) index of each track's detection or -1, and (N,) which detections are no new points.
    """
    detected_as = np.full(earlier.count, -1)
    taken = np.zeros(features.count, np.bool_)
    tracks, by, close = find_again(
        features, earlier, found, threshold, np.flatnonzero(ok), least_cosine
    )
    detected_as[tracks] = by
    taken[close] = True
    return detected_as, taken

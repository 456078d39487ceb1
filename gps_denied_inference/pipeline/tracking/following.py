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

from gps_denied_inference.pipeline.features import Features
from gps_denied_inference.pipeline.geometry import GeometricModel, Points
from gps_denied_inference.pipeline.matcher import Matches
from gps_denied_inference.pipeline.tracking.flow import View
from gps_denied_inference.pipeline.tracking.links import find_again
from gps_denied_inference.pipeline.tracking.motion import Motion
from gps_denied_inference.pipeline.tracking.patches import Patches
from gps_denied_inference.pipeline.tracking.tracks import Links, Tracks

PARALLAX_TOLERANCE = 0.5
"""From frame to frame a point's parallax stays the same to within this share of it, and the
threshold's share below."""

GATE_SHARE = 0.5
"""Of the matches' threshold."""

NEAR = 1.0
"""px: a detection no farther than this from where a point was looked for tells nothing new."""


def carry(
    features: Features,
    earlier: Tracks,
    seen: Matches,
    model: GeometricModel,
    before: View,
    now: View,
    threshold: float,
    max_followed: int,
) -> tuple[Features, Links]:
    """Go on with all tracks in a frame in which nothing was detected.

    Args:
        features: of the earlier frame.
        seen, model: what :func:`flow.see_motion` gave, and what verified it.

    Returns:
        As :func:`follow`.
    """
    nothing = dataclasses.replace(
        features,
        keypoints=features.keypoints[:0],
        scores=features.scores[:0],
        descriptors=features.descriptors[:0],
    )
    motion = Motion(seen, model, threshold)
    return _go_on(
        nothing, earlier, Matches.none(), motion, before, now, threshold, max_followed, 1.0
    )


def follow(
    features: Features,
    earlier: Tracks,
    matches: Matches,
    model: GeometricModel,
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
        matches: ``features`` (query) against the earlier frame's (reference).
        model: what verified ``matches``.
        before, now: the two views.
        threshold: px, of the verification.
        max_followed: frames in a row that a track may go without a detection.
        least_cosine: a detection less alike than this is no track's, unless it was matched.

    Returns:
        The frame's features with the followed points among them, at most ``now.room`` and in order
        of falling score, and the links into them. A followed point lies where the image shows it;
        where a detection belongs to it, it has that detection's score and descriptor, else its
        last ones. Detections within ``threshold`` of a followed point begin no tracks.
    """
    motion = Motion(matches, model, threshold)
    verified = matches.select(model.inliers)
    return _go_on(
        features, earlier, verified, motion, before, now, threshold, max_followed, least_cosine
    )


def _go_on(
    features: Features,
    earlier: Tracks,
    verified: Matches,
    motion: Motion,
    before: View,
    now: View,
    threshold: float,
    max_followed: int,
    least_cosine: float,
) -> tuple[Features, Links]:
    on_plane = motion.project(earlier.places)
    young = earlier.ages == 0
    parallax = earlier.parallax.copy()
    parallax[young] = motion.parallax(earlier.places[young])
    predicted = on_plane + parallax
    found, ok, patches = _find(earlier, predicted, verified, motion, before, now)
    # Relief shows from a track's second frame on; then it only changes as the camera's speed does.
    reach = GATE_SHARE * threshold + PARALLAX_TOLERANCE * np.linalg.norm(parallax, axis=1)
    reach[young] = np.maximum(reach[young], motion.relief)
    ok &= np.linalg.norm(found - predicted, axis=1) < reach
    ok &= motion.agrees(earlier.places, found)
    detected_as, taken = _detections(
        features, earlier, found, ok, verified, threshold, least_cosine
    )

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
    places = np.concatenate([found[tracks], features.keypoints[fresh]])
    descriptors = np.concatenate(
        [features.descriptors[chosen], earlier.descriptors[lost], features.descriptors[fresh]]
    )
    at = np.empty_like(order)
    at[order] = np.arange(len(order))
    followed = np.zeros(len(tracks), np.uint32)
    followed[len(detected) :] = earlier.followed[lost] + 1
    moved = dataclasses.replace(
        features,
        keypoints=places[order].astype(np.float32),
        scores=scores[order],
        descriptors=descriptors[order],
    )
    links = Links(
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
    earlier: Tracks,
    predicted: Points,
    verified: Matches,
    motion: Motion,
    before: View,
    now: View,
) -> tuple[Points, npt.NDArray[np.bool_], Patches]:
    """Find all tracks' points: (T, 2) px, which were found, and their patches as they lie now."""
    assert earlier.patches is not None
    grey_motion = now.received_to_grey @ motion.plane @ np.linalg.inv(before.received_to_grey)
    patches = earlier.patches.moved(_stretch(grey_motion, before.to_grey(earlier.places)))
    start = now.to_grey(predicted)
    found, ok = patches.find(now.grey, start)
    # A point that left the plane too far to be found from there may be where it was detected.
    there = verified.reference_indices
    again = ~ok[there]
    again &= np.linalg.norm(verified.query_points - predicted[there], axis=1) > NEAR
    there = there[again]
    if len(there):
        start = now.to_grey(verified.query_points[again])
        found[there], ok[there] = patches.select(there).find(now.grey, start)
    return now.to_received(found), ok, patches


def _stretch(
    homography: npt.NDArray[np.float64], points: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Return how a homography (3, 3) turns and scales around points (T, 2): (T, 2, 2)."""
    depth = points @ homography[2, :2] + homography[2, 2]
    moved = (points @ homography[:2, :2].T + homography[:2, 2]) / depth[:, None]
    turned = homography[:2, :2] - moved[:, :, None] * homography[2, :2]
    return np.asarray(turned / depth[:, None, None], np.float32)


def _detections(
    features: Features,
    earlier: Tracks,
    found: Points,
    ok: npt.NDArray[np.bool_],
    verified: Matches,
    threshold: float,
    least_cosine: float,
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
    """Join detections to the tracks found near them.

    Returns:
        (T,) index of each track's detection or -1, and (N,) which detections are no new points.
    """
    detected_as = np.full(earlier.count, -1)
    taken = np.zeros(features.count, np.bool_)
    here, there = verified.query_indices, verified.reference_indices
    near = ok[there]
    near &= np.linalg.norm(verified.query_points - found[there], axis=1) < threshold
    detected_as[there[near]] = here[near]
    taken[here[near]] = True
    around = np.full(earlier.count, threshold)
    free = np.flatnonzero(~taken)
    tracks, by, close = find_again(
        features, earlier, found, around, np.flatnonzero(ok), free, least_cosine
    )
    new = detected_as[tracks] < 0
    detected_as[tracks[new]] = by[new]
    taken[close] = True
    return detected_as, taken

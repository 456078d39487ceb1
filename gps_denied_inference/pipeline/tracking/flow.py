"""Following tracked points in the image itself, where the detector misses them.

A detector looks at each frame afresh: XFeat finds only every second or third of a frame's points
again in the next one, and its whole-pixel peaks wander by a pixel or two. The motion field of the
verified matches says where each point must be now to within a pixel, so one level of Lucas and
Kanade's method (OpenCV's) around that place finds the point itself, to about a tenth of a pixel.

Geometry still decides: a point counts as followed only where the way back leads to its start, its
patch looks the same, and the place agrees with the motion field from the track's filtered position,
as for any link. Nor may a track live by flow alone: without a detection of like descriptor it ends
after ``max_followed`` frames in a row.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from gps_denied_inference.pipeline.features import Features
from gps_denied_inference.pipeline.geometry import GeometricModel, Points
from gps_denied_inference.pipeline.matcher import Matches
from gps_denied_inference.pipeline.tracking.links import Links, Tracks, expect, find_again

WINDOW = 15
"""px, side of the patch. 11 px doubles the error on the simulated flight, 21 px the time."""

WAY_BACK = 0.5
"""px, followed forth and back a point must end this close to where it began."""

LEAST_FOR_CORRECTION = 50
"""Followed points, five times as many as the correction has coefficients."""

LIKENESS = 0.7
"""Correlation of the patches before and now, which light does not change. Something that hides the
point gives less; the way back does not show it, for flow hardly moves where nothing fits."""

LEVELS = 3
"""Halvings of the image in which to look for points of which nothing is known. Most of those that
moved by 40 px of grey are found, one in five of those that moved by 50."""

MOST_FOR_MOTION = 200
"""Points whose flow tells the frame's motion. The field they give places all others."""

_STOP = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 10, 0.03)


@dataclass(frozen=True, eq=False)
class View:
    """The image that a frame's features come from.

    Attributes:
        grey: uint8 (H, W), no larger than flow needs: the engine's size.
        scale: (2,) float64, px of ``grey`` per px of the received image, in x and y.
        room: most features that this frame may have, K.
    """

    grey: npt.NDArray[np.uint8]
    scale: npt.NDArray[np.float64]
    room: int

    @classmethod
    def of(cls, image: npt.NDArray[np.uint8], width: int, height: int, room: int) -> View:
        """Make it from a received image.

        Args:
            image: uint8 (H, W) or (H, W, 3) RGB.
            width, height: px, the engine's.
            room: K.
        """
        rows, columns = image.shape[:2]
        if (rows, columns) != (height, width):
            shrinks = rows * columns > height * width
            method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            image = np.asarray(cv2.resize(image, (width, height), interpolation=method), np.uint8)
        if image.ndim == 3:
            image = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
        scale = np.array([width / columns, height / rows])
        # A copy: the caller may fill its buffer with the next frame.
        return cls(np.array(image, order="C", copy=True), scale, room)

    def inside(self, points: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
        """Tell which points (N, 2), px of the received image, have their whole patch in view."""
        at, margin = self.to_grey(points), WINDOW // 2
        limit = np.array(self.grey.shape[::-1]) - 1 - margin
        return np.asarray(np.all((at >= margin) & (at <= limit), axis=1), np.bool_)

    def to_grey(self, points: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Bring points (N, 2) from px of the received image to px of ``grey``."""
        return ((points + 0.5) * self.scale - 0.5).astype(np.float32)

    def to_received(self, points: npt.NDArray[np.floating]) -> Points:
        """Bring points (N, 2) from px of ``grey`` to px of the received image."""
        return (points.astype(np.float64) + 0.5) / self.scale - 0.5


def follow(
    before: View, now: View, points: Points, expected: Points
) -> tuple[Points, npt.NDArray[np.bool_]]:
    """Find points of one view in another one.

    Args:
        points: (N, 2) px of the received image, in ``before``.
        expected: (N, 2) px, where they should be in ``now``, to within about two px of grey.

    Returns:
        (N, 2) px, and (N,) which of them were found.
    """
    found = expected.copy()
    ok = before.inside(points) & now.inside(expected)
    if before.grey.shape != now.grey.shape or not ok.any():
        return found, np.zeros(len(points), np.bool_)
    start = before.to_grey(points[ok])
    guess = now.to_grey(expected[ok])
    forth, valid = _search(before.grey, now.grey, start, guess)
    back, again = _search(now.grey, before.grey, forth, start.copy())
    good = valid & again
    good &= np.linalg.norm(back - start, axis=1) < WAY_BACK
    good &= _likeness(before.grey, start, now.grey, forth) > LIKENESS
    found[ok] = now.to_received(forth)
    ok[ok] = good
    return found, ok


def _search(
    before: npt.NDArray[np.uint8],
    now: npt.NDArray[np.uint8],
    start: npt.NDArray[np.float32],
    guess: npt.NDArray[np.float32],
    levels: int = 0,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Run flow from ``guess``, which is overwritten."""
    if len(start) == 0:
        return guess, np.zeros(0, np.bool_)
    found, valid, _ = cv2.calcOpticalFlowPyrLK(
        before,
        now,
        start,
        guess,
        winSize=(WINDOW, WINDOW),
        maxLevel=levels,
        criteria=_STOP,
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )
    return np.asarray(found, np.float32), np.asarray(valid[:, 0] > 0, np.bool_)


def _likeness(
    before: npt.NDArray[np.uint8],
    start: npt.NDArray[np.float32],
    now: npt.NDArray[np.uint8],
    end: npt.NDArray[np.float32],
) -> npt.NDArray[np.float32]:
    """Return the correlation, -1..1, of the patches around points (N, 2) of two images."""
    a, b = _patches(before, start), _patches(now, end)
    # The least contrast is that of rounding to whole grey levels: flat patches are like nothing.
    spread = np.sqrt((np.sum(a * a, axis=1) + 1.0) * (np.sum(b * b, axis=1) + 1.0))
    return np.asarray(np.sum(a * b, axis=1) / spread, np.float32)


def _patches(
    image: npt.NDArray[np.uint8], points: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Return every second pixel of the patches around points, (N, P), less their mean."""
    step = np.arange(-(WINDOW // 2), WINDOW // 2 + 1, 2, dtype=np.float32)
    x, y = (offsets.ravel() for offsets in np.meshgrid(step, step))
    patches = cv2.remap(
        image, points[:, :1] + x, points[:, 1:] + y, cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    ).astype(np.float32)  # fmt: skip
    return np.asarray(patches - patches.mean(axis=1, keepdims=True), np.float32)


def see_motion(before: View, now: View, features: Features) -> Matches:
    """Match points of one view with another view by flow alone.

    Neither the way back nor the patches are compared: these pairs are to be verified together.

    Args:
        features: of ``before``.

    Returns:
        Where up to :data:`MOST_FOR_MOTION` of them are in ``now`` (query) against where they were
        (reference); both indices say which they are; scores are 1.
    """
    step = max(1, -(-features.count // MOST_FOR_MOTION))
    # In order of falling score, every n-th lies anywhere in the image.
    indices = np.arange(0, features.count, step, dtype=np.int32)
    points = features.keypoints[indices].astype(np.float64)
    if before.grey.shape != now.grey.shape:
        indices, points = indices[:0], points[:0]
    start = before.to_grey(points)
    found, ok = _search(before.grey, now.grey, start, start.copy(), LEVELS)
    indices = indices[ok]
    return Matches(
        indices,
        indices,
        np.ones(len(indices), np.float32),
        now.to_received(found[ok]).astype(np.float32),
        features.keypoints[indices],
        (features.width, features.height),
        (features.width, features.height),
        features.evident(features.keypoints[indices]),
        features.scale,
        features.scale,
    )


def carry(
    features: Features,
    earlier: Tracks,
    motion: Matches,
    model: GeometricModel,
    before: View,
    now: View,
    threshold: float,
    max_followed: int,
) -> tuple[Features, Links]:
    """Go on with all tracks in a frame in which nothing was detected.

    Args:
        features, earlier: of the earlier frame, and the tracks after it.
        motion, model: what :func:`see_motion` gave, and what verified it.

    Returns:
        As :func:`extend`.
    """
    predicted, reach, flat = expect(earlier, motion, model, threshold)
    nothing = dataclasses.replace(
        features,
        keypoints=features.keypoints[:0],
        scores=features.scores[:0],
        descriptors=features.descriptors[:0],
    )
    none = np.zeros(0, np.int32)
    links = Links.of(nothing, earlier, none, none, predicted, reach, flat)
    return extend(nothing, links, earlier, features, before, now, threshold, max_followed)


def extend(
    features: Features,
    links: Links,
    earlier: Tracks,
    earlier_features: Features,
    before: View,
    now: View,
    threshold: float,
    max_followed: int,
) -> tuple[Features, Links]:
    """Place links where flow finds their points, and go on with tracks that were not detected.

    Args:
        features: of this frame, as detected.
        links: what matching found, with predictions.
        earlier, earlier_features: the tracks after the earlier frame, and its features.
        before, now: the two views.
        threshold: px, of the verification.
        max_followed: frames in a row that a track may go without a detection.

    Returns:
        The frame's features with the followed points among them, at most ``now.room`` and in order
        of falling score, and the links into them. A point whose track was found by flow has its
        place; where a detection belongs to it, that detection's score and descriptor, else its
        last ones. Detections within ``threshold`` of a followed point begin no tracks.
    """
    predicted, reach = links.predicted, links.reach
    if predicted is None or reach is None:
        return features, links
    count = earlier_features.count  # tracks that coast have no place to be followed from
    # On flat ground the filtered position is the better start: begun where it ended, flow would add
    # up its errors from frame to frame. Relief moves points in ways that the filter lags behind.
    points = earlier.smoothed[:count] if links.flat else earlier_features.keypoints.astype(float)
    expected = predicted[:count] + points - earlier.smoothed[:count]
    found, ok = follow(before, now, points, expected)
    if links.flat:
        predicted = predicted + _correction(expected, found - expected, ok, predicted)
    ok &= np.linalg.norm(found - predicted[:count], axis=1) < reach[:count]
    detected_as = np.full(earlier.count, -1)
    detected_as[links.there] = links.here
    lost = np.flatnonzero(ok & (detected_as[:count] < 0))
    taken = np.zeros(features.count, np.bool_)
    taken[links.here] = True
    # The place is known now, so that a detection belongs to it within the detector's own noise.
    around = np.full(count, threshold)
    found_again, by, near = find_again(
        features, earlier, found, around, lost, np.flatnonzero(~taken)
    )
    detected_as[found_again] = by
    taken[near] = True  # the same points over again would be second tracks of them
    lost = lost[(detected_as[lost] < 0) & (earlier.followed[lost] < max_followed)]
    detected = np.flatnonzero(detected_as >= 0)
    # Where there is no room for all, those that have lasted longest go on.
    longest = np.argsort(-earlier.ages[lost].astype(np.int64), kind="stable")
    lost = lost[longest[: max(now.room - len(detected), 0)]]
    tracks = np.concatenate([detected, lost])
    fresh = np.flatnonzero(~taken)[: max(now.room - len(tracks), 0)]

    chosen = np.concatenate([detected_as[detected], fresh])
    keypoints = np.concatenate(
        [features.keypoints[detected_as[detected]], found[lost], features.keypoints[fresh]]
    ).astype(np.float32)
    placed = np.flatnonzero(np.isin(detected, np.flatnonzero(ok)))
    keypoints[placed] = found[detected[placed]]
    split = len(detected)

    def rows(of: str) -> npt.NDArray[np.float32]:
        new = getattr(features, of)[chosen]
        old = getattr(earlier_features, of)[lost]
        return np.concatenate([new[:split], old, new[split:]])

    scores = rows("scores")
    order = np.argsort(-scores, kind="stable")
    at = np.empty_like(order)
    at[order] = np.arange(len(order))
    followed = np.zeros(len(tracks), np.uint32)
    followed[split:] = earlier.followed[lost] + 1
    moved = dataclasses.replace(
        features,
        keypoints=keypoints[order],
        scores=scores[order],
        descriptors=rows("descriptors")[order],
    )
    here, there = at[: len(tracks)].astype(np.int32), tracks.astype(np.int32)
    return moved, Links.of(moved, earlier, here, there, predicted, reach, links.flat, followed)


def _correction(
    places: Points, residuals: Points, ok: npt.NDArray[np.bool_], wanted: Points
) -> Points:
    """Fit what flow finds beside the motion field, and return it at the ``wanted`` places.

    A homography that is slightly off is off by a quadratic polynomial of the place.
    """
    if np.count_nonzero(ok) < LEAST_FOR_CORRECTION:
        return np.zeros_like(wanted)
    centre = places[ok].mean(axis=0)
    span = float(np.abs(places[ok] - centre).max())
    terms, target = _quadratic((places[ok] - centre) / span), residuals[ok]
    keep = np.ones(len(terms), np.bool_)
    for _ in range(3):
        # By the normal equations: the terms are of order one, and few.
        chosen = terms[keep]
        fit = np.linalg.lstsq(chosen.T @ chosen, chosen.T @ target[keep], rcond=None)[0]
        off = np.linalg.norm(target - terms @ fit, axis=1)
        keep = off <= 3.0 * np.median(off)
    return np.asarray(_quadratic((wanted - centre) / span) @ fit, np.float64)


def _quadratic(points: Points) -> Points:
    x, y = points.T
    return np.column_stack([np.ones_like(x), x, y, x * x, x * y, y * y])

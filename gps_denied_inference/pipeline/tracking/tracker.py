"""Frame-to-frame tracks with ids that an estimator can trust.

Each frame is matched to the one before, the matches are verified by geometry, and features that
pass continue tracks (:mod:`links`). With the images at hand, tracks are followed in them as well
(:mod:`flow`). A track whose point is found in neither way for a few frames keeps its id if the
point turns up again where it must be; estimators that need an unbroken row of frames get one from
:mod:`feature_cloud`. A frame in which nothing could be tracked carries only fresh ids, and
tracks go on from the last good frame if the next one shows the same scene within ``max_gap``.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import get_args

import numpy as np
import numpy.typing as npt

from gps_denied_inference.errors import InvalidParameterError, UnknownNameError
from gps_denied_inference.pipeline.comparison import Comparison
from gps_denied_inference.pipeline.features import Features
from gps_denied_inference.pipeline.geometry import Points
from gps_denied_inference.pipeline.matcher import Matcher, Matches
from gps_denied_inference.pipeline.tracking.flow import View, see_motion
from gps_denied_inference.pipeline.tracking.following import carry, follow, scouted
from gps_denied_inference.pipeline.tracking.frame import Frame
from gps_denied_inference.pipeline.tracking.ids import PROCESS_IDS
from gps_denied_inference.pipeline.tracking.ids import IdSource as IdSource
from gps_denied_inference.pipeline.tracking.keyframes import compare, has_moved_on
from gps_denied_inference.pipeline.tracking.links import find_links
from gps_denied_inference.pipeline.tracking.motion import Step
from gps_denied_inference.pipeline.tracking.tracks import Links, Tracks, same_tracks
from gps_denied_inference.pipeline.tracking.update import TrackEvent, TrackUpdate
from gps_denied_inference.pipeline.tracking.verified import EFFORT, VerifiedMatcher
from gps_denied_inference.settings import GeometryModel

MODELS: tuple[GeometryModel, ...] = get_args(GeometryModel)
FOLLOWED_SHARE = 0.5
"""Of the last detection's features: with fewer left to follow, a frame must be detected."""

TAKE_TURNS = 3
"""Frames lost in a row, from which on each is held against one earlier frame instead of two."""

MIN_FEATURES = 12
"""Frames with fewer features are ``blank``: no homography could be verified on them."""


class Tracker:
    """Keeps track ids from frame to frame.

    Args:
        matcher: finds pairs between two frames' features.
        geometry: what verifies them: ``"homography"`` (near-flat ground), ``"fundamental"`` (a
            scene with depth) or ``"none"``: no check, and ids jump where the matcher errs.
        threshold: px of the received image, greatest residual of a match; links are gated by a
            share of it, see :mod:`links`.
        max_followed: frames in a row in which a track may be followed by flow without a detection
            (:mod:`flow`), where frames come with their views; 0 = detections alone.
        max_gap: s, tracks do not outlive a longer time without a good frame.
        keyframe_share: a new key frame is due when a smaller share of its features goes on.
        keyframe_motion: a new key frame is due when the median pair has moved this share of the
            image diagonal.
        guided_cosine: descriptors less alike than this are not joined where the place alone speaks
            for it; each network's own, see ``models.zoo``.
        ids: where ids come from.

    Raises:
        UnknownNameError, InvalidParameterError: an option out of its bounds.
    """

    def __init__(
        self,
        matcher: Matcher,
        geometry: GeometryModel = "homography",
        threshold: float = 3.0,
        *,
        max_followed: int = 0,
        max_gap: float = 1.0,
        keyframe_share: float = 0.3,
        keyframe_motion: float = 0.15,
        guided_cosine: float = 0.85,
        ids: IdSource = PROCESS_IDS,
    ) -> None:
        if geometry not in MODELS:
            raise UnknownNameError("geometric model", geometry, MODELS)
        if max_followed < 0:
            raise InvalidParameterError("max_followed", max_followed, ">= 0")
        for name, value in (("threshold", threshold), ("max_gap", max_gap)):
            if not value > 0.0:
                raise InvalidParameterError(name, value, "> 0")
        self._verified = VerifiedMatcher(matcher, geometry, threshold)
        self._model = geometry
        self._threshold = threshold
        self._max_followed = max_followed
        self._max_gap_ns = round(max_gap * 1e9)
        self._keyframe_share = keyframe_share
        self._keyframe_motion = keyframe_motion
        self._guided_cosine = guided_cosine
        self._ids = ids
        self._view: View | None = None
        self._counters: Counter[str] = Counter()
        self._alive = 0
        self.reset()

    @property
    def counters(self) -> Mapping[str, int]:
        """As of :class:`TrackUpdate`, now."""
        return dict(self._counters)

    def reset(self) -> None:
        """Forget every frame. Tracks end here; counters and ids go on."""
        self._cut_to(0)
        self._lost = 0
        self._newest: Frame | None = None
        self._anchor: Frame | None = None
        self._keyframe: Frame | None = None

    def update(
        self, features: Features, stamp_ns: int, tag: object = None, view: View | None = None
    ) -> TrackUpdate:
        """Take the next frame.

        Args:
            features: as detected, without track ids.
            stamp_ns: the frame's time, ns.
            tag: kept with the frame, returned as ``keyframe_tag`` once it is the key frame.
            view: the image, for following points in it; None = detections alone.
        """
        self._view = view if self._max_followed and self._model != "none" else None
        newest, anchor = self._newest, self._anchor
        if newest is not None:
            # A camera that sends a frame twice, or freezes: its time may stand still or go on.
            if stamp_ns >= newest.stamp_ns and _same(features, newest.detected):
                return self._report(newest, "repeated", continued=features.count)
            if stamp_ns <= newest.stamp_ns:
                self.reset()
                return self._begin(features, stamp_ns, tag, "time_backwards")
        if features.count < MIN_FEATURES:
            return self._lose(features, stamp_ns, tag, "blank")
        if anchor is None or newest is None:
            return self._begin(features, stamp_ns, tag, "started")
        candidates = [anchor] if newest is anchor else [anchor, newest]
        if self._lost >= TAKE_TURNS and len(candidates) > 1:
            candidates = candidates[self._lost % 2 :][:1]
        candidates = [
            c
            for c in candidates
            if stamp_ns - c.stamp_ns <= self._max_gap_ns and c.features.count >= MIN_FEATURES
        ]
        if not candidates:
            return self._begin(features, stamp_ns, tag, "gap")
        for candidate in candidates:
            linked = self._link(features, candidate, stamp_ns - candidate.stamp_ns)
            if linked is not None:
                moved, links = linked
                return self._continue(moved, features, stamp_ns, tag, candidate, links)
        if stamp_ns - anchor.stamp_ns > self._max_gap_ns:  # not to be tried again
            self._anchor = None
        return self._lose(features, stamp_ns, tag, "lost")

    def follow(self, view: View, stamp_ns: int, tag: object = None) -> TrackUpdate | None:
        """Take the next frame by its image alone: go on with the newest frame's tracks in it.

        Args:
            view: the image.
            stamp_ns, tag: as of :meth:`update`.

        Returns:
            None, and nothing has changed, where the frame must be detected and :meth:`update`
            called: there is no good newest frame to follow from, times are out of order or too far
            apart, no one motion is seen, or too few tracks are left.
        """
        newest = self._newest
        if newest is None or newest is not self._anchor or newest.view is None:
            return None
        elapsed = stamp_ns - newest.stamp_ns
        if elapsed >= 0 and np.array_equal(view.grey, newest.view.grey):
            continued = newest.features.count
            return self._report(newest, "repeated", continued=continued, detected=False)
        if not 0 < elapsed <= self._max_gap_ns:
            return None
        motion = self._verified.foreseen(newest, newest.view, view, elapsed)
        if motion is None:
            seen = see_motion(newest.view, view, newest.features)
            model = self._verified.verify(seen)
            if model is None:
                return None
            motion = scouted(newest.seen, seen, model, newest.view, view, self._threshold)
        features, links = carry(
            newest.features, newest.seen, motion, newest.view, view,
            self._threshold, self._max_followed,
        )  # fmt: skip
        if features.count < max(MIN_FEATURES, FOLLOWED_SHARE * newest.detected.count):
            return None
        self._view = view
        self._counters["followed_frames"] += 1
        return self._continue(features, newest.detected, stamp_ns, tag, newest, links, False)

    def _begin(
        self, features: Features, stamp_ns: int, tag: object, event: TrackEvent
    ) -> TrackUpdate:
        """Start afresh with this frame; what leads to the old key frame is still reported."""
        compared = None
        keyframe = self._keyframe
        if keyframe is not None:
            compared = Comparison.of(
                *self._verified.match(features, keyframe.features, sampled=False)
            )
        frame = self._with_fresh_ids(features, stamp_ns, tag)
        self._newest = self._anchor = self._keyframe = frame
        self._lost = 0
        self._counters["keyframes"] += 1
        cut = self._cut_to(features.count)
        return self._report(frame, event, True, keyframe, compared, cut=cut)

    def _lose(
        self, features: Features, stamp_ns: int, tag: object, event: TrackEvent
    ) -> TrackUpdate:
        """Nothing could be tracked: keep the last good frame for the next one to try."""
        frame = self._with_fresh_ids(features, stamp_ns, tag)
        self._lost += 1
        self._newest = frame
        if self._anchor is None and event == "lost":
            self._anchor = frame
        waiting = 0 if self._anchor in (None, frame) else self._anchor.tracks.count
        return self._report(frame, event, cut=self._cut_to(waiting + features.count))

    def _continue(
        self,
        features: Features,
        detected: Features,
        stamp_ns: int,
        tag: object,
        earlier: Frame,
        links: Links,
        newly_detected: bool = True,
    ) -> TrackUpdate:
        keyframe = self._keyframe
        assert keyframe is not None
        ids = np.zeros(features.count, np.uint64)
        ids[links.here] = earlier.tracks.ids[links.there]
        pairs = same_tracks(ids, keyframe.sorted_ids)
        start = earlier.expected(keyframe, links.plane)
        compared, model = compare(
            features, keyframe.features, pairs, self._model, self._threshold, start, EFFORT
        )
        if model is not None and model.type == "fundamental":
            # Frame to frame, an epipolar line lets slow drift pass; from the key frame it adds up.
            drifted = np.zeros(features.count, np.bool_)
            drifted[pairs[0][~model.inliers]] = True
            links = links.without(drifted[links.here])
        fresh = np.ones(features.count, np.bool_)
        fresh[links.here] = False
        ids[fresh] = self._take(int(np.count_nonzero(fresh)))
        tracks = links.advance(features, earlier.tracks, ids, self._view)
        to_keyframe = None if model is None else model.matrix
        step = Step(links.plane, links.model, stamp_ns - earlier.stamp_ns)
        frame = self._frame(features, detected, stamp_ns, tag, tracks, to_keyframe, step)
        continued = len(links.here)
        due = (model is None and self._model != "none") or has_moved_on(
            frame.features, keyframe.features, pairs, model,
            self._keyframe_share, self._keyframe_motion,
        )  # fmt: skip
        if due:
            self._keyframe = frame
            self._counters["keyframes"] += 1
        self._newest, self._anchor, self._lost = frame, frame, 0
        cut = self._cut_to(frame.tracks.count)
        return self._report(
            frame, "tracked", due, keyframe, compared, continued, cut, newly_detected
        )

    def _report(
        self,
        frame: Frame,
        event: TrackEvent,
        is_keyframe: bool = False,
        keyframe: Frame | None = None,
        compared: Comparison | None = None,
        continued: int = 0,
        cut: int = 0,
        detected: bool = True,
    ) -> TrackUpdate:
        self._counters[event] += 1
        return TrackUpdate(
            features=frame.features,
            event=event,
            is_keyframe=is_keyframe,
            to_keyframe=compared,
            keyframe_features=None if keyframe is None else keyframe.features,
            keyframe_tag=None if keyframe is None else keyframe.tag,
            continued=continued,
            followed=int(np.count_nonzero(frame.tracks.followed[: frame.features.count])),
            detected=detected,
            coasting=frame.tracks.count - frame.features.count,
            cut=cut,
            counters=self.counters,
        )

    def _take(self, count: int) -> npt.NDArray[np.uint64]:
        self._counters["tracks_started"] += count
        self._alive += count
        return self._ids.take(count)

    def _cut_to(self, remaining: int) -> int:
        """Count as ended all tracks but ``remaining``: started - cut is what is alive, always."""
        cut, self._alive = self._alive - remaining, remaining
        self._counters["tracks_cut"] += cut
        return cut

    def _with_fresh_ids(self, features: Features, stamp_ns: int, tag: object) -> Frame:
        tracks = Tracks.fresh(features, self._take(features.count))
        return self._frame(features, features, stamp_ns, tag, tracks)

    def _frame(
        self,
        features: Features,
        detected: Features,
        stamp_ns: int,
        tag: object,
        tracks: Tracks,
        to_keyframe: Points | None = None,
        step: Step | None = None,
    ) -> Frame:
        """Give features the ids and ages of their tracks."""
        ids, ages = tracks.ids[: features.count], tracks.ages[: features.count]
        features = dataclasses.replace(features, track_ids=ids, track_ages=ages)
        return Frame(features, detected, self._view, stamp_ns, tag, tracks, to_keyframe, step)

    def _link(
        self, features: Features, earlier: Frame, elapsed_ns: int
    ) -> tuple[Features, Links] | None:
        """Join features to an earlier frame's tracks and keep what geometry confirms.

        Returns:
            The features, followed points among them, and their links; None where that is nothing.
        """
        before, now, motion = earlier.view, self._view, None
        if before is not None and now is not None:
            motion = self._verified.foreseen(earlier, before, now, elapsed_ns)
        matches, model = Matches.none(), None
        if motion is None:
            # With images a sample will do; after a lost frame it hardly does.
            sampled = now is not None and not self._lost
            matches, model = self._verified.match(features, earlier.features, sampled)
            if self._model == "none":
                return (features, _unverified(matches)) if matches.count else None
            if model is None:
                self._counters["links_rejected"] += matches.count
                return None
        if before is not None and now is not None:
            if motion is None:
                assert model is not None
                motion = scouted(earlier.seen, matches, model, before, now, self._threshold)
            moved, links = follow(
                features, earlier.seen, motion, before, now,
                self._threshold, self._max_followed, self._guided_cosine,
            )  # fmt: skip
        else:
            assert model is not None
            moved = features
            links = find_links(
                features, earlier.tracks, matches, model, self._threshold, self._guided_cosine
            )
        if model is not None:
            kept = np.isin(matches.reference_indices, links.there) & model.inliers
            self._counters["links_rejected"] += matches.count - int(np.count_nonzero(kept))
        return (moved, links) if len(links.here) >= MIN_FEATURES else None


def _unverified(matches: Matches) -> Links:
    """Return all matches as links."""
    places = matches.query_points.astype(np.float64)
    followed = np.zeros(matches.count, np.uint32)
    return Links(
        np.eye(3), np.eye(3), matches.query_indices, matches.reference_indices, places,
        np.zeros_like(places), followed, None,
    )  # fmt: skip


def _same(a: Features, b: Features) -> bool:
    if a.count < MIN_FEATURES:
        return False
    return np.array_equal(a.keypoints, b.keypoints) and np.array_equal(a.descriptors, b.descriptors)

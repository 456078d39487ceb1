"""One camera's frames, from image to result, and what is kept from one to the next.

The engines are shared by all cameras. A frame is worked on in two steps, :meth:`CameraStream.begin`
and :meth:`CameraStream.finish`; between them lies the forward pass, which frames of several cameras
may share.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gps_denied_inference.models import zoo
from gps_denied_inference.pipeline.comparison import Comparison
from gps_denied_inference.pipeline.extractor import Extractor
from gps_denied_inference.pipeline.features import Features
from gps_denied_inference.pipeline.frame_quality import FrameQuality
from gps_denied_inference.pipeline.geometry import GeometricModel, verify
from gps_denied_inference.pipeline.matcher import Matcher, Matches
from gps_denied_inference.pipeline.reference import Reference
from gps_denied_inference.pipeline.rotations import RotatedReference, RotationMatcher
from gps_denied_inference.pipeline.task_health import TaskHealth
from gps_denied_inference.pipeline.tracking.flow import View
from gps_denied_inference.pipeline.tracking.tracker import Tracker
from gps_denied_inference.pipeline.tracking.update import TrackUpdate
from gps_denied_inference.settings import Settings


@dataclass(frozen=True)
class Frame:
    """A frame as it comes in.

    Attributes:
        image: uint8 (H, W) or (H, W, 3) RGB, as ``color`` says.
        stamp_ns: its time, ns.
        tag: kept with it and returned as ``reference_tag`` once it is a key frame.
    """

    image: npt.NDArray[np.uint8]
    stamp_ns: int
    tag: Any


@dataclass(frozen=True)
class FrameResult:
    """What one frame gave.

    Attributes:
        features: with track ids and ages for task ``track``.
        comparison: with the previous key frame or the reference; None where there is none yet.
        reference_features: the features that ``matches`` point into.
        reference_tag: whatever was given with the reference or the key frame (its header).
        track: everything about the tracks; None unless the task is ``track``.
        timings: seconds per stage.
        quality: how well exposed and how sharp the frame is.
    """

    features: Features
    comparison: Comparison | None
    reference_features: Features | None
    reference_tag: Any
    timings: dict[str, float]
    track: TrackUpdate | None = None
    quality: FrameQuality | None = None

    @property
    def matches(self) -> Matches | None:
        """The comparison's; None where there is none."""
        return None if self.comparison is None else self.comparison.matches

    @property
    def geometry(self) -> GeometricModel | None:
        """The model that verified them; None where none was asked for or found."""
        return None if self.comparison is None else self.comparison.geometry


@dataclass(frozen=True)
class Begun:
    """A frame that waits for its features.

    Attributes:
        frame: the frame.
        view: what tracks are followed in; None where they are not.
        timings: seconds per stage until now.
    """

    frame: Frame
    view: View | None
    timings: dict[str, float]


class CameraStream:
    """Tracks, reference and health of one camera. Not thread-safe.

    Args:
        settings: valid settings.
        matcher: between frames, or frame and reference; None for task ``extract``.
    """

    def __init__(self, settings: Settings, matcher: Matcher | None) -> None:
        self._settings = settings
        self.matcher = matcher
        self._tracker: Tracker | None = None
        self._rotation_matcher: RotationMatcher | None = None
        self._reference: Reference | None = None
        self._reference_tag: Any = None
        self._undetected = 0
        self.health = TaskHealth(settings.task)
        """Whether the task gives its result."""
        if settings.keeps_tracks:
            assert matcher is not None
            self._tracker = Tracker(
                matcher=matcher,
                geometry=settings.geometry,
                threshold=settings.geometry_threshold,
                max_followed=settings.max_followed_frames,
                guided_cosine=zoo.get(settings.model).guided_cosine,
            )

    def set_reference(
        self, extractor: Extractor, image: npt.NDArray[np.uint8], tag: Any
    ) -> Features:
        """Extract and keep the reference's features (task ``match``). Raises as extracting does."""
        assert self.matcher is not None
        settings = self._settings
        reference = Reference(extractor, image, settings.reference_angles, settings.reference_scale)
        self._rotation_matcher = RotationMatcher(
            self.matcher, settings.geometry, settings.geometry_threshold
        )
        self._reference, self._reference_tag = reference, tag
        return reference.views.all

    @property
    def reference(self) -> Reference | None:
        """What task ``match`` matches with; None = there is none."""
        return self._reference

    @property
    def reference_described(self) -> str:
        """How the reference is seen, in one line; empty while there is none."""
        return self._reference.described if self._reference is not None else ""

    def restart(self) -> None:
        """Forget the key frame: tracks do not outlive a pause, nor does what is known of health."""
        self.health.reset()
        if self._tracker is not None:
            self._tracker.reset()

    def begin(self, frame: Frame, width: int, height: int, room: int) -> FrameResult | Begun:
        """Answer a frame without the network, or say that it needs its features.

        Args:
            frame: one that the engine can take.
            width, height: px that the network sees.
            room: features that it gives at most.
        """
        settings, tracker = self._settings, self._tracker
        if tracker is None or settings.max_followed_frames == 0:
            return Begun(frame, None, {})
        begin = time.perf_counter()
        view, update = View.of(frame.image, width, height, room), None
        timings: dict[str, float] = {}
        if self._undetected + 1 < settings.detection_interval:
            update = tracker.follow(view, frame.stamp_ns, frame.tag)
            timings["follow"] = time.perf_counter() - begin
        self._undetected += 1
        if update is None:
            return Begun(frame, view, timings)
        return self._judged(frame, _of_tracks(update, timings))

    def finish(self, begun: Begun, features: Features, timings: dict[str, float]) -> FrameResult:
        """Answer a frame by its features.

        Args:
            begun: of :meth:`begin`; no frame of this camera may have come between.
            features: the frame's.
            timings: seconds that extracting them took, by stage.
        """
        frame, timings = begun.frame, {**begun.timings, **timings}
        if self._tracker is not None:
            self._undetected = 0
            begin = time.perf_counter()
            update = self._tracker.update(features, frame.stamp_ns, frame.tag, begun.view)
            timings["track"] = time.perf_counter() - begin
            return self._judged(frame, _of_tracks(update, timings))
        result = FrameResult(features, None, None, None, timings)
        if self._settings.task == "match" and self._reference is not None:
            self._reference.fit(1.0 / features.scale)
            views = self._reference.views
            matches, geometry = self._match(features, views, result.timings)
            result = replace(
                result,
                comparison=Comparison.of(matches, geometry),
                reference_features=views.all,
                reference_tag=self._reference_tag,
            )
        return self._judged(frame, result)

    def _judged(self, frame: Frame, result: FrameResult) -> FrameResult:
        """Measure the frame and note what came of it."""
        settings = self._settings
        quality = FrameQuality.of(frame.image, settings.image_width, settings.image_height)
        matched = None
        if settings.task == "match" and result.matches is not None:
            verifies = settings.geometry != "none"
            matched = result.geometry is not None if verifies else result.matches.count > 0
        repeated = result.track is not None and result.track.event == "repeated"
        self.health.answered(frame.stamp_ns, result.features, matched, repeated, quality)
        return replace(result, quality=quality)

    def _match(
        self, features: Features, reference: RotatedReference, timings: dict[str, float]
    ) -> tuple[Matches, GeometricModel | None]:
        assert self.matcher is not None
        settings, begin = self._settings, time.perf_counter()
        geometry = None
        if len(reference.views) > 1:
            assert self._rotation_matcher is not None
            matches, geometry = self._rotation_matcher.match(features, reference)
        else:
            matches = self.matcher.match(features, reference.all)
            if settings.geometry != "none":
                matched = time.perf_counter()
                geometry = verify(matches, settings.geometry, threshold=settings.geometry_threshold)
                timings["verify"] = time.perf_counter() - matched
        timings["match"] = time.perf_counter() - begin - timings.get("verify", 0.0)
        return matches, geometry


def _of_tracks(update: TrackUpdate, timings: dict[str, float]) -> FrameResult:
    return FrameResult(
        update.features,
        update.to_keyframe,
        update.keyframe_features,
        update.keyframe_tag,
        timings,
        update,
    )

"""Engines and per-frame work for one set of settings, without ROS.

The node and offline replay run the same session, so they give the same answers.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gps_denied_inference.errors import ConfigurationError, FrameError, StorageError
from gps_denied_inference.images.files import read_image
from gps_denied_inference.networks import Networks
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
from gps_denied_inference.runtimes.contract import EngineHandle, Progress, Readback
from gps_denied_inference.runtimes.selection import Selection
from gps_denied_inference.settings import Settings
from gps_denied_inference.storage.files import user_path

if TYPE_CHECKING:
    from gps_denied_inference.thermal.state import ThermalState


@dataclass(frozen=True)
class FrameResult:
    """What one frame gave.

    Attributes:
        features: with track ids and ages for task ``track``.
        matches: to the previous key frame or to the reference; None where there is none yet.
        geometry: the model that verified ``matches``; None where none was asked for or found.
        reference_features: the features that ``matches`` point into.
        reference_tag: whatever was given with the reference or the key frame (its header).
        track: everything about the tracks; None unless the task is ``track``.
        timings: seconds per stage.
        quality: how well exposed and how sharp the frame is.
    """

    features: Features
    matches: Matches | None
    geometry: GeometricModel | None
    reference_features: Features | None
    reference_tag: Any
    timings: dict[str, float]
    track: TrackUpdate | None = None
    quality: FrameQuality | None = None


class InferenceSession:
    """Loads what the settings ask for, answers frames, gives everything back.

    Not thread-safe: one thread opens, one worker processes, ``close`` comes after the worker ended.

    Args:
        settings: valid settings.
        thermal_source: handed to the runtime's ``thermal_state``.
    """

    def __init__(
        self, settings: Settings, thermal_source: Callable[[], ThermalState] | None = None
    ) -> None:
        self.settings = settings
        self._thermal_source = thermal_source
        self._networks: Networks | None = None
        self._extractor: Extractor | None = None
        self._reduced: Extractor | None = None
        self._matcher: Matcher | None = None
        self._tracker: Tracker | None = None
        self._rotation_matcher: RotationMatcher | None = None
        self._reference: Reference | None = None
        self._reference_tag: Any = None
        self.health = TaskHealth(settings.task)
        """Whether the task gives its result."""
        self._use_reduced = False
        self._undetected = 0

    def open(self, progress: Progress | None = None) -> None:
        """Choose the runtime, gate or build the engines, load and warm up.

        On any error everything already taken is given back, and ``open`` may be called again.

        Raises:
            GpsDeniedInferenceError: what could not be had.
        """
        try:
            self._open(progress)
        except BaseException:
            self.close()
            raise

    def _open(self, progress: Progress | None) -> None:
        settings = self.settings
        networks = self._networks = Networks(settings, progress, self._thermal_source)
        self._extractor = networks.extractor(settings.max_keypoints)
        if settings.thermal_reduced_keypoints:
            self._reduced = networks.extractor(settings.thermal_reduced_keypoints)
        if settings.task != "extract":
            self._matcher = networks.matcher(settings.matcher, settings.max_keypoints)
        if settings.keeps_tracks:
            assert self._matcher is not None
            self._tracker = Tracker(
                matcher=self._matcher,
                geometry=settings.geometry,
                threshold=settings.geometry_threshold,
                max_followed=settings.max_followed_frames,
            )
        if settings.task == "match" and settings.reference_file:
            self.set_reference(self._read_reference(settings.reference_file), "file")

    def _read_reference(self, file: str) -> npt.NDArray[np.uint8]:
        settings = self.settings
        try:
            return read_image(
                user_path(file),
                settings.color,
                settings.mono16_scaling,
                settings.max_image_pixels,
            )
        except (FrameError, StorageError) as error:
            raise ConfigurationError(f"reference_file '{file}' is refused: {error}") from error

    @property
    def selection(self) -> Selection | None:
        """The runtime, device and precision that were chosen; None while nothing is open."""
        return self._networks.selection if self._networks is not None else None

    @property
    def is_open(self) -> bool:
        """True while engines are loaded."""
        return self._extractor is not None

    @property
    def readback(self) -> Readback:
        """What really runs.

        Raises:
            ConfigurationError: nothing is loaded.
        """
        return self.handle.readback

    @property
    def handle(self) -> EngineHandle:
        """The extractor's engine.

        Raises:
            ConfigurationError: nothing is loaded.
        """
        if self._networks is None or not self._networks.handles:
            raise ConfigurationError("no engine is loaded: open the session first")
        return self._networks.handles[0]

    @property
    def running_since(self) -> float | None:
        """Monotonic s at which the forward pass that runs now began; None = none runs."""
        handles = self._networks.handles if self._networks is not None else ()
        return min((h.running_since for h in handles if h.running_since is not None), default=None)

    def limit_keypoints(self, limit: int) -> None:
        """Use the reduced engine while ``limit`` asks for fewer keypoints (0 = no limit)."""
        self._use_reduced = bool(
            self._reduced is not None and 0 < limit < self.settings.max_keypoints
        )

    def set_reference(self, image: npt.NDArray[np.uint8], tag: object) -> Features:
        """Extract and keep the reference's features (task ``match``)."""
        if self._extractor is None:
            raise ConfigurationError("no engine is loaded: open the session first")
        assert self._matcher is not None
        settings = self.settings
        reference = Reference(
            self._extractor, image, settings.reference_angles, settings.reference_scale
        )
        self._rotation_matcher = RotationMatcher(
            self._matcher, settings.geometry, settings.geometry_threshold
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

    def restart_tracks(self) -> None:
        """Forget the key frame: tracks do not outlive a pause, nor does what is known of health."""
        self.health.reset()
        if self._tracker is not None:
            self._tracker.reset()

    def process(self, image: npt.NDArray[np.uint8], stamp_ns: int, tag: object) -> FrameResult:
        """Answer one frame.

        Args:
            image: uint8 (H, W) or (H, W, 3) RGB, as ``color`` says.
            stamp_ns: the frame's time, ns.
            tag: kept with the frame and returned as ``reference_tag`` once it is a key frame.

        Raises:
            FrameError, InferenceError, DeviceOutOfMemoryError.
        """
        settings = self.settings
        result = self._process(image, stamp_ns, tag)
        quality = FrameQuality.of(image, settings.image_width, settings.image_height)
        matched = None
        if self.settings.task == "match" and result.matches is not None:
            verifies = self.settings.geometry != "none"
            matched = result.geometry is not None if verifies else result.matches.count > 0
        repeated = result.track is not None and result.track.event == "repeated"
        self.health.answered(stamp_ns, result.features, matched, repeated, quality)
        return dataclasses.replace(result, quality=quality)

    def _process(self, image: npt.NDArray[np.uint8], stamp_ns: int, tag: object) -> FrameResult:
        extractor = self._reduced if self._use_reduced else self._extractor
        if extractor is None:
            raise FrameError("no engine is loaded", "not_configured")
        extractor.check(image)
        if self._tracker is not None:
            return self._track(self._tracker, extractor, image, stamp_ns, tag)
        features, timings = self._extract(extractor, image)
        if self.settings.task == "match" and self._reference is not None:
            self._reference.fit(1.0 / features.scale)
            views = self._reference.views
            matches, geometry = self._match(features, views, timings)
            return FrameResult(features, matches, geometry, views.all, self._reference_tag, timings)
        return FrameResult(features, None, None, None, None, timings)

    def _match(
        self, features: Features, reference: RotatedReference, timings: dict[str, float]
    ) -> tuple[Matches, GeometricModel | None]:
        assert self._matcher is not None
        settings, begin = self.settings, time.perf_counter()
        geometry = None
        if len(reference.views) > 1:
            assert self._rotation_matcher is not None
            matches, geometry = self._rotation_matcher.match(features, reference)
        else:
            matches = self._matcher.match(features, reference.all)
            if settings.geometry != "none":
                matched = time.perf_counter()
                geometry = verify(matches, settings.geometry, threshold=settings.geometry_threshold)
                timings["verify"] = time.perf_counter() - matched
        timings["match"] = time.perf_counter() - begin - timings.get("verify", 0.0)
        return matches, geometry

    def _extract(
        self, extractor: Extractor, image: npt.NDArray[np.uint8]
    ) -> tuple[Features, dict[str, float]]:
        begin = time.perf_counter()
        features = extractor.extract(image)
        return features, {
            "extract": time.perf_counter() - begin,
            "infer": extractor.inference_time,
        }

    def _view(self, image: npt.NDArray[np.uint8], extractor: Extractor) -> View | None:
        settings = self.settings
        if settings.max_followed_frames == 0:
            return None
        reduced = extractor is self._reduced
        room = settings.thermal_reduced_keypoints if reduced else settings.max_keypoints
        return View.of(image, extractor.width, extractor.height, room)

    def _track(
        self,
        tracker: Tracker,
        extractor: Extractor,
        image: npt.NDArray[np.uint8],
        stamp_ns: int,
        tag: object,
    ) -> FrameResult:
        begin = time.perf_counter()
        view, update = self._view(image, extractor), None
        timings: dict[str, float] = {}
        if view is not None and self._undetected + 1 < self.settings.detection_interval:
            update = tracker.follow(view, stamp_ns, tag)
            timings["follow"] = time.perf_counter() - begin
        self._undetected += 1
        if update is None:
            self._undetected = 0
            features, extraction = self._extract(extractor, image)
            begin = time.perf_counter()
            update = tracker.update(features, stamp_ns, tag, view)
            timings |= {**extraction, "track": time.perf_counter() - begin}
        return FrameResult(
            update.features,
            update.matches_to_keyframe,
            update.geometry,
            update.keyframe_features,
            update.keyframe_tag,
            timings,
            update,
        )

    def close(self) -> None:
        """Give every engine back. May be called at any time and more than once."""
        networks, self._networks = self._networks, None
        self._extractor = self._reduced = self._matcher = self._tracker = None
        self._rotation_matcher = None
        self._reference = self._reference_tag = None
        if networks is not None:
            networks.close()


def settings_with(settings: Settings, **changes: Any) -> Settings:
    """Return valid settings with some values changed.

    Raises:
        InvalidParameterError, UnknownNameError.
    """
    return Settings.from_mapping(dataclasses.asdict(settings) | changes)

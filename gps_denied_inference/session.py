"""Engines and per-frame work for one set of settings, without ROS.

The node and offline replay run the same session, so they give the same answers.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from gps_denied_inference.errors import ConfigurationError, FrameError, StorageError
from gps_denied_inference.images.files import read_image
from gps_denied_inference.networks import IN_PROCESS_MATCHER, Networks
from gps_denied_inference.pipeline.extractor import Extractor
from gps_denied_inference.pipeline.features import Features
from gps_denied_inference.pipeline.reference import Reference
from gps_denied_inference.pipeline.task_health import TaskHealth
from gps_denied_inference.runtimes.contract import EngineHandle, Progress, Readback
from gps_denied_inference.runtimes.selection import Selection
from gps_denied_inference.settings import Settings
from gps_denied_inference.storage.files import user_path
from gps_denied_inference.stream import Begun, CameraStream, Frame, FrameResult

if TYPE_CHECKING:
    from gps_denied_inference.thermal.state import ThermalState

__all__ = ["Frame", "FrameResult", "InferenceSession", "settings_with"]

Answer = FrameResult | Exception
"""What came of a frame: its result, or why there is none."""

T = TypeVar("T")


class InferenceSession:
    """Loads what the settings ask for, answers frames, gives everything back.

    Cameras share the engines; tracks, reference and health are each camera's own. Not thread-safe:
    one thread opens, one worker processes, ``close`` comes after the worker ended.

    Args:
        settings: valid settings; their ``cameras`` are known by their places.
        thermal_source: handed to the runtime's ``thermal_state``.

    Attributes:
        streams: of each camera, in the order of ``settings.cameras``; empty while nothing is open.
    """

    def __init__(
        self, settings: Settings, thermal_source: Callable[[], ThermalState] | None = None
    ) -> None:
        self.settings = settings
        self._thermal_source = thermal_source
        self._networks: Networks | None = None
        self._extractor: Extractor | None = None
        self._reduced: Extractor | None = None
        self._use_reduced = False
        self._side_by_side: ThreadPoolExecutor | None = None
        self.streams: tuple[CameraStream, ...] = ()

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
        settings, count = self.settings, len(self.settings.cameras)
        networks = self._networks = Networks(settings, progress, self._thermal_source)
        self._extractor = networks.extractor(settings.max_keypoints, batch=networks.batch)
        if settings.thermal_reduced_keypoints:
            reduced = settings.thermal_reduced_keypoints
            self._reduced = networks.extractor(reduced, batch=networks.batch)
        matcher = None
        if settings.task != "extract":
            matcher = networks.matcher(settings.matcher, settings.max_keypoints)
        self.streams = tuple(CameraStream(settings, matcher) for _ in range(count))
        if count > 1 and (matcher is None or settings.matcher == IN_PROCESS_MATCHER):
            # What runs in an engine takes its turn; the rest of the cameras' work need not.
            self._side_by_side = ThreadPoolExecutor(count, thread_name_prefix="camera")
        if settings.task == "match" and settings.reference_file:
            image = self._read_reference(settings.reference_file)
            for place in range(count):
                self.set_reference(image, "file", place)

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
        networks = self._networks
        return networks.running_since if networks is not None else None

    def limit_keypoints(self, limit: int) -> None:
        """Use the reduced engine while ``limit`` asks for fewer keypoints (0 = no limit)."""
        self._use_reduced = bool(
            self._reduced is not None and 0 < limit < self.settings.max_keypoints
        )

    def set_reference(self, image: npt.NDArray[np.uint8], tag: Any, camera: int = 0) -> Features:
        """Extract and keep the reference's features of one camera (task ``match``)."""
        if self._extractor is None:
            raise ConfigurationError("no engine is loaded: open the session first")
        return self.streams[camera].set_reference(self._extractor, image, tag)

    @property
    def reference(self) -> Reference | None:
        """What the first camera's task ``match`` matches with; None = there is none."""
        return self.streams[0].reference if self.streams else None

    @property
    def reference_described(self) -> str:
        """How the first camera's reference is seen, in one line; empty while there is none."""
        return self.streams[0].reference_described if self.streams else ""

    @property
    def health(self) -> TaskHealth:
        """Whether the first camera's task gives its result.

        Raises:
            ConfigurationError: nothing is loaded.
        """
        if not self.streams:
            raise ConfigurationError("no engine is loaded: open the session first")
        return self.streams[0].health

    def restart_tracks(self) -> None:
        """Forget the key frames: neither tracks nor what is known of health outlive a pause."""
        for stream in self.streams:
            stream.restart()

    def process(self, image: npt.NDArray[np.uint8], stamp_ns: int, tag: Any) -> FrameResult:
        """Answer one frame of the first camera.

        Args:
            image: uint8 (H, W) or (H, W, 3) RGB, as ``color`` says.
            stamp_ns: the frame's time, ns.
            tag: kept with the frame and returned as ``reference_tag`` once it is a key frame.

        Raises:
            FrameError, InferenceError, DeviceOutOfMemoryError.
        """
        answer = self.process_together({0: Frame(image, stamp_ns, tag)})[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def process_together(self, frames: Mapping[int, Frame]) -> dict[int, Answer]:
        """Answer at most one frame of each camera, in as few forward passes as the engine can.

        Each answer is what :meth:`process` would give, or the exception that it would raise: one
        camera's bad frame takes nothing from the others.

        Args:
            frames: by the camera's place; the answers are in their order.
        """
        answers: dict[int, Answer] = {}
        extractor = self._reduced if self._use_reduced else self._extractor
        if extractor is None:
            return {place: FrameError("no engine is loaded", "not_configured") for place in frames}
        taken = extractor
        settings = self.settings
        reduced = taken is self._reduced
        room = settings.thermal_reduced_keypoints if reduced else settings.max_keypoints

        def begin(place: int) -> FrameResult | Begun:
            taken.check(frames[place].image)
            return self.streams[place].begin(frames[place], taken.width, taken.height, room)

        waiting: dict[int, Begun] = {}
        for place, begun in self._each(begin, list(frames)).items():
            if isinstance(begun, Begun):
                waiting[place] = begun
            else:
                answers[place] = begun
        if waiting:
            answers |= self._extracted(taken, waiting)
        return {place: answers[place] for place in frames}

    def _extracted(self, extractor: Extractor, waiting: Mapping[int, Begun]) -> dict[int, Answer]:
        started = time.perf_counter()
        try:
            images = [begun.frame.image for begun in waiting.values()]
            found = dict(zip(waiting, extractor.extract_together(images), strict=True))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is each frame's answer
            return dict.fromkeys(waiting, error)
        timings = {
            "extract": time.perf_counter() - started,
            "infer": extractor.inference_time,
        }

        def finish(place: int) -> FrameResult:
            features = found[place]
            if isinstance(features, Exception):
                raise features
            return self.streams[place].finish(waiting[place], features, timings)

        return dict(self._each(finish, list(waiting)))

    def _each(self, work: Callable[[int], T], places: list[int]) -> dict[int, T | Exception]:
        """Do the work of each camera, side by side where that is of use."""

        def guarded(place: int) -> T | Exception:
            try:
                return work(place)
            except Exception as error:  # noqa: BLE001 - it is this camera's answer
                return error

        if self._side_by_side is None or len(places) < 2:
            return {place: guarded(place) for place in places}
        return dict(zip(places, self._side_by_side.map(guarded, places), strict=True))

    def close(self) -> None:
        """Give every engine back. May be called at any time and more than once."""
        networks, self._networks = self._networks, None
        self._extractor = self._reduced = None
        self.streams = ()
        pool, self._side_by_side = self._side_by_side, None
        if pool is not None:
            pool.shutdown()
        if networks is not None:
            networks.close()


def settings_with(settings: Settings, **changes: Any) -> Settings:
    """Return valid settings with some values changed.

    Raises:
        InvalidParameterError, UnknownNameError.
    """
    return Settings.from_mapping(dataclasses.asdict(settings) | changes)

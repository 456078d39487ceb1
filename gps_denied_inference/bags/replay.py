"""A rosbag2 through the node's own pipeline, without ROS and as fast as it goes."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer, WriterError

from gps_denied_inference.bags.messages import (
    FEATURE_ARRAY,
    MATCH_ARRAY,
    POINT_CLOUD,
    MessageMaker,
    typestore,
)
from gps_denied_inference.bags.reader import Bag, BagImage
from gps_denied_inference.errors import (
    ConfigurationError,
    FrameError,
    GpsDeniedInferenceError,
    InvalidOutputError,
    StorageError,
)
from gps_denied_inference.pipeline.camera import (
    CameraModel,
    calibration_beside,
    calibration_fields,
)
from gps_denied_inference.pipeline.feature_cloud import FeatureCloudBuilder
from gps_denied_inference.pipeline.finding_log import FindingLog
from gps_denied_inference.runtimes.contract import Progress, Readback
from gps_denied_inference.session import FrameResult, InferenceSession
from gps_denied_inference.settings import Settings

FEATURES_TOPIC = "/inference_node/features"
MATCHES_TOPIC = "/inference_node/matches"
CLOUD_TOPIC = "/inference_node/feature_cloud"
_BAG_VERSION = 9
_NANOSECOND = 1e-9


@dataclass
class ReplayResult:
    """What a replay did.

    Attributes:
        readback: what ran.
        model, model_sha256: the extractor that gave the features.
        frames, answered: images in the bag, and those that gave features.
        drops: those that did not, by the reason that the node would count.
        notes: what the bag lacks, and what recovers it.
        findings: why the task gave no result, as the node's status would say; empty where it did.
        recorded: s, first to last image of the bag by the time of recording.
        duration: s, that the replay of them took, without loading the engine.
        stages: s, samples per stage.
    """

    readback: Readback | None = None
    model: str = ""
    model_sha256: str = ""
    frames: int = 0
    answered: int = 0
    drops: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    recorded: float = 0.0
    duration: float = 0.0
    stages: dict[str, list[float]] = field(default_factory=dict)

    def latency_ms(self) -> dict[str, dict[str, float]]:
        """Return p50 and p95 in ms, by stage."""
        return {
            stage: {
                name: 1e3 * float(np.percentile(samples, share))
                for name, share in (("p50", 50), ("p95", 95))
            }
            for stage, samples in self.stages.items()
        }


def replay(
    bag: Bag,
    settings: Settings,
    destination: Path,
    on_frame: Callable[[int], None] = lambda frames: None,
    progress: Progress | None = None,
) -> ReplayResult:
    """Run every image of a bag through a session and write the results as a rosbag2 in MCAP.

    Messages carry the header of their image and the time at which the bag recorded it. With tracks,
    and where the bag has a ``camera_info`` beside its images, the first of it calibrates a cloud of
    every tracked frame.

    Args:
        destination: folder of the new bag; it must not exist.
        on_frame: called with the number of images done.
        progress: of preparing the engine.

    Raises:
        ConfigurationError, EngineError, ...: as opening a session, or a bag that breaks off.
        StorageError: the destination exists or cannot be written.
    """
    if settings.task == "match" and not settings.reference_file:
        raise ConfigurationError(
            "replay has no topic that gives a reference image: set reference_file for task 'match'"
        )
    if settings.cameras != ("",):
        raise ConfigurationError(
            "replay takes the images of one topic: leave camera_names out, and replay each "
            "camera's topic by itself (--topic)"
        )
    if bag.path.is_dir() and destination.resolve().is_relative_to(bag.path.resolve()):
        raise StorageError(f"cannot write bag {destination}: it lies inside the bag that is read")
    if destination.exists():
        raise StorageError(f"cannot write bag {destination}: it exists already")
    store = typestore()
    session = InferenceSession(settings)
    session.open(progress)
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with Writer(destination, version=_BAG_VERSION, storage_plugin=StoragePlugin.MCAP) as writer:
            return _Replay(session, settings, store, writer).run(bag, on_frame)
    except BaseException as error:
        # Half a bag is worse than none: it looks like one.
        shutil.rmtree(destination, ignore_errors=True)
        if isinstance(error, (WriterError, OSError)):
            raise StorageError(f"cannot write bag {destination}: {error}") from error
        raise
    finally:
        session.close()


class _Replay:
    def __init__(
        self, session: InferenceSession, settings: Settings, store: Any, writer: Writer
    ) -> None:
        self._session = session
        self._settings = settings
        self._store = store
        self._make = MessageMaker(store)
        self._writer = writer
        self._features = writer.add_connection(FEATURES_TOPIC, FEATURE_ARRAY, typestore=store)
        self._matches = None
        if settings.task != "extract":
            self._matches = writer.add_connection(MATCHES_TOPIC, MATCH_ARRAY, typestore=store)
        self._clouds: Any = None
        self._builder: FeatureCloudBuilder | None = None
        self._no_cloud = ""

    def _calibrate(self, bag: Bag) -> None:
        """Make ready for clouds, or note what they lack."""
        settings, topic = self._settings, calibration_beside(bag.topic)
        message = bag.calibration()
        if message is None:
            self._no_cloud = f"the bag has no {topic}"
            return
        try:
            self._builder = FeatureCloudBuilder(
                CameraModel.from_info(**calibration_fields(message)),
                settings.cloud_layout,
                settings.cloud_max_points,
            )
        except GpsDeniedInferenceError as error:
            self._no_cloud = f"{topic} was refused: {error}"
            return
        self._clouds = self._writer.add_connection(CLOUD_TOPIC, POINT_CLOUD, typestore=self._store)

    def run(self, bag: Bag, on_frame: Callable[[int], None]) -> ReplayResult:
        done = ReplayResult(readback=self._session.readback)
        if self._settings.keeps_tracks:
            self._calibrate(bag)
        begin = time.perf_counter()
        found = FindingLog()
        first = last = None
        for image in bag.images():
            done.frames += 1
            first, last = first if first is not None else image.recorded_ns, image.recorded_ns
            taken = time.perf_counter()
            try:
                pixels = image.decode(
                    self._settings.color,
                    depth_scaling=self._settings.mono16_scaling,
                    max_pixels=self._settings.max_image_pixels,
                )
                converted = time.perf_counter()
                header = self._make.header(image.message.header)
                result = self._session.process(pixels, image.stamp_ns, header)
            except FrameError as error:
                done.drops[error.reason] += 1
                continue
            except InvalidOutputError:
                done.drops["invalid_output"] += 1
                continue
            finally:
                on_frame(done.frames)
            timings = {
                "convert": converted - taken,
                **result.timings,
                "end_to_end": time.perf_counter() - taken,
            }
            for stage, seconds in timings.items():
                done.stages.setdefault(stage, []).append(seconds)
            found.note(
                self._session.health.finding(self._session.reference, (last - first) * _NANOSECOND)
            )
            done.answered += 1
            done.model, done.model_sha256 = result.features.model, result.features.model_sha256
            self._write(result, header, image.recorded_ns)
            self._write_cloud(result, header, image)
        done.duration = time.perf_counter() - begin
        done.notes, done.findings = list(bag.notes), found.lines
        if self._no_cloud:
            done.notes.append(f"no feature_cloud: {self._no_cloud}")
        if first is not None and last is not None:
            done.recorded = (last - first) * _NANOSECOND
        return done

    def _write(self, result: FrameResult, header: object, recorded_ns: int) -> None:
        features = self._make.feature_array(result, header)
        self._put(self._features, features, FEATURE_ARRAY, recorded_ns)
        if self._matches is None or result.matches is None:
            return
        matches = self._make.match_array(
            result,
            header,
            result.reference_tag if self._settings.keeps_tracks else self._no_header(),
            "keyframe" if self._settings.keeps_tracks else Path(self._settings.reference_file).name,
            self._settings.matcher,
        )
        self._put(self._matches, matches, MATCH_ARRAY, recorded_ns)

    def _write_cloud(self, result: FrameResult, header: object, image: BagImage) -> None:
        if self._builder is None or result.track is None:
            return
        try:
            cloud = self._builder.build(result.track, image.stamp_ns)
        except FrameError as error:
            self._no_cloud = str(error)
            return
        if cloud is not None:
            message = self._make.point_cloud(cloud, header)
            self._put(self._clouds, message, POINT_CLOUD, image.recorded_ns)

    def _no_header(self) -> object:
        """The empty header of a reference that is a file."""
        types = self._store.types
        stamp = types["builtin_interfaces/msg/Time"](sec=0, nanosec=0)
        return types["std_msgs/msg/Header"](stamp=stamp, frame_id="")

    def _put(self, connection: Any, message: Any, kind: str, recorded_ns: int) -> None:
        data = self._store.serialize_cdr(message, kind)
        self._writer.write(connection, recorded_ns, data)

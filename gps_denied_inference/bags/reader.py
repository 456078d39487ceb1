"""Camera images of a rosbag2, in the order they were recorded.

What a bag has lost does not keep the rest from being read: data files are read without their
``metadata.yaml``, and files that break off up to their break. ``Bag.notes`` says what is missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from gps_denied_inference.bags import damaged
from gps_denied_inference.bags.layout import METADATA, data_files
from gps_denied_inference.errors import (
    ConfigurationError,
    FrameError,
    StorageError,
    UnknownNameError,
)
from gps_denied_inference.images.compressed import compressed_to_array
from gps_denied_inference.images.raw import image_to_array
from gps_denied_inference.pipeline.camera import calibration_beside
from gps_denied_inference.storage.files import require_regular

IMAGE_TYPES = {
    "sensor_msgs/msg/Image": False,
    "sensor_msgs/msg/CompressedImage": True,
}
CALIBRATION_TYPE = "sensor_msgs/msg/CameraInfo"
_MOST_METADATA = 1 << 26  # bytes
_MOST_MESSAGES = 1 << 40


@dataclass(frozen=True)
class BagImage:
    """One image message of a bag.

    Attributes:
        message: as ``rosbags`` deserialised it, with the fields of the ROS message; None where its
            bytes are no such message.
        is_compressed: ``sensor_msgs/CompressedImage``, else ``sensor_msgs/Image``.
        recorded_ns: ns, when the bag recorded it.
        fault: why ``message`` is None.
    """

    message: Any
    is_compressed: bool
    recorded_ns: int
    fault: str = ""

    @property
    def stamp_ns(self) -> int:
        """Time of exposure, ns, from the header; of recording where there is no message."""
        if self.message is None:
            return self.recorded_ns
        stamp = self.message.header.stamp
        return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)

    def decode(self, color: Any, **options: Any) -> npt.NDArray[np.uint8]:
        """Return the pixels as the node's own conversion gives them, (H, W) or (H, W, 3) RGB.

        Raises:
            FrameError: the message does not add up.
        """
        if self.message is None:
            raise FrameError(f"message does not deserialise: {self.fault}", "malformed")
        if self.is_compressed:
            return np.asarray(compressed_to_array(self.message, color, **options), np.uint8)
        return np.asarray(image_to_array(self.message, color, **options), np.uint8)


@dataclass
class _Part:
    """What is read in one go: a whole bag, or one of its files.

    Attributes:
        path: folder or file.
        is_damaged: read without index, from its beginning.
        topics: its image topics, (topic, type): number of messages.
    """

    path: Path
    is_damaged: bool = False
    topics: Counter[tuple[str, str]] = field(default_factory=Counter)


class Bag:
    """A rosbag2: its folder, or its one ``.db3`` or ``.mcap`` file.

    Args:
        path: the bag.
        topic: the image topic; None takes the only one.

    Attributes:
        notes: one line for everything that is missing, with what recovers it.

    Raises:
        ConfigurationError: no bag, nothing of it readable, without images, or with several image
            topics.
        UnknownNameError: the bag has no such image topic.
    """

    def __init__(self, path: Path, topic: str | None = None) -> None:
        self.path = Path(path)
        self.notes: list[str] = []
        self._typestore = get_typestore(Stores.ROS2_JAZZY)
        self._parts = self._find_parts()
        topics = {name for part in self._parts for name, _ in part.topics}
        if topic is None and len(topics) > 1:
            raise ConfigurationError(
                f"bag {self.path} has several image topics, choose one with --topic: "
                + ", ".join(sorted(topics))
            )
        if topic is not None and topic not in topics:
            raise UnknownNameError(f"image topic in bag {self.path}", topic, topics)
        if not topics:
            if self.notes:
                raise ConfigurationError(f"cannot read bag {self.path}: {'; '.join(self.notes)}")
            raise ConfigurationError(
                f"bag {self.path} has no topic of type sensor_msgs/Image or "
                "sensor_msgs/CompressedImage"
            )
        self.topic = topic if topic is not None else next(iter(topics))

    def _find_parts(self) -> list[_Part]:
        if not self.path.is_dir():
            return [self._file_part(self.path)]
        metadata = self.path / METADATA
        reason = f"it has no {METADATA}"
        if metadata.exists():
            try:
                _check_regular(metadata)
                return [self._whole_part(self.path)]
            except ConfigurationError as error:
                reason = str(error)
        files = data_files(self.path)
        if not files:
            raise ConfigurationError(f"cannot read bag {self.path}: {reason}, and no data file")
        self.notes.append(
            f"{reason}: its {len(files)} data file(s) are read by name; "
            f"'ros2 bag reindex {self.path}' writes {METADATA} anew"
        )
        return [self._file_part(file) for file in files]

    def _file_part(self, file: Path) -> _Part:
        try:
            require_regular(file)
        except StorageError as error:
            raise ConfigurationError(f"no bag: {error}") from error
        try:
            return self._whole_part(file)
        except ConfigurationError as error:
            part, faults = _Part(file, is_damaged=True), [str(error)]
            for name, kind, _, _ in damaged.records(file, faults):
                if kind in IMAGE_TYPES:
                    part.topics[name, kind] += 1
            self._note_damage(file, sum(part.topics.values()), faults)
            return part

    def _note_damage(self, file: Path, count: int, faults: list[str]) -> None:
        self.notes.append(
            f"{file.name} is damaged ({'; '.join(faults)}): {count} images of it can be read; "
            f"'{damaged.recovery(file)}' saves its other topics too"
        )

    def _whole_part(self, path: Path) -> _Part:
        """Return the part with its topics as the index says.

        Raises:
            ConfigurationError: the index cannot be read, or is impossible.
        """
        part = _Part(path)
        with self._open(path) as reader:
            for connection in reader.connections:
                count: Any = connection.msgcount
                if not isinstance(count, int) or not 0 <= count <= _MOST_MESSAGES:
                    raise ConfigurationError(
                        f"its {METADATA if path.is_dir() else 'index'} says that "
                        f"{connection.topic} has {count} messages (message_count)"
                    )
                if connection.msgtype in IMAGE_TYPES:
                    part.topics[connection.topic, connection.msgtype] += count
        return part

    @contextmanager
    def _open(self, path: Path) -> Iterator[AnyReader]:
        # Bags of older recorders carry no message definitions: those of Jazzy are taken then.
        try:
            reader = AnyReader([path], default_typestore=self._typestore)
            reader.open()
        except Exception as error:  # rosbags lets sqlite's, lz4's and struct's errors through
            raise ConfigurationError(f"cannot read bag {path}: {_one_line(error)}") from error
        try:
            yield reader
        finally:
            reader.close()

    def __len__(self) -> int:
        return sum(
            count
            for part in self._parts
            for (name, _), count in part.topics.items()
            if name == self.topic
        )

    def images(self) -> Iterator[BagImage]:
        """Yield the topic's images, also the ones that are broken.

        A file that turns out to be damaged is read on without its index; ``notes`` says so.
        """
        for part in self._parts:
            if part.is_damaged:
                yield from self._salvaged(part.path, None)
                continue
            last: int | None = None
            try:
                for image in self._indexed(part.path):
                    last = image.recorded_ns
                    yield image
            except _DamagedError as error:
                self.notes.append(
                    f"{part.path.name} is damaged ({error}): the rest is read without its index"
                )
                for file in [part.path] if part.path.is_file() else data_files(part.path):
                    yield from self._salvaged(file, last)

    def calibration(self) -> Any:
        """Return the first message on the ``camera_info`` topic beside the images'; None = none."""
        topic = calibration_beside(self.topic)
        for part in self._parts:
            try:
                if part.is_damaged:
                    for name, kind, _, data in damaged.records(part.path, []):
                        if (name, kind) == (topic, CALIBRATION_TYPE):
                            return self._typestore.deserialize_cdr(data, kind)
                    continue
                with self._open(part.path) as reader:
                    chosen = [
                        c
                        for c in reader.connections
                        if (c.topic, c.msgtype) == (topic, CALIBRATION_TYPE)
                    ]
                    for connection, _, data in reader.messages(chosen) if chosen else ():
                        return reader.typestore.deserialize_cdr(data, connection.msgtype)
            except Exception as error:  # noqa: BLE001 - as above and below: damaged bytes
                self.notes.append(
                    f"the camera_info of {part.path.name} cannot be read ({_one_line(error)})"
                )
        return None

    def _indexed(self, path: Path) -> Iterator[BagImage]:
        with self._open(path) as reader:
            chosen = [
                c for c in reader.connections if c.topic == self.topic and c.msgtype in IMAGE_TYPES
            ]
            messages = reader.messages(chosen)
            while True:
                try:
                    connection, recorded_ns, data = next(messages)
                except StopIteration:
                    return
                except Exception as error:  # as above
                    raise _DamagedError(_one_line(error)) from error
                yield self._image(reader.typestore, connection.msgtype, recorded_ns, data)

    def _salvaged(self, file: Path, after: int | None) -> Iterator[BagImage]:
        """Yield the images of a file, without its index, recorded after a time in ns."""
        for topic, kind, recorded_ns, data in damaged.records(file, []):
            is_new = after is None or recorded_ns > after
            if topic == self.topic and kind in IMAGE_TYPES and is_new:
                yield self._image(self._typestore, kind, recorded_ns, data)

    def _image(self, types: Any, kind: str, recorded_ns: int, data: bytes) -> BagImage:
        try:
            message, fault = types.deserialize_cdr(data, kind), ""
        except Exception as error:  # noqa: BLE001 - struct's, numpy's, unicode's: damaged bytes
            message, fault = None, _one_line(error)
        return BagImage(message, IMAGE_TYPES[kind], recorded_ns, fault)


class _DamagedError(Exception):
    """A bag's index led to something that cannot be read."""


def _check_regular(metadata: Path) -> None:
    try:
        require_regular(metadata, _MOST_METADATA)
    except StorageError as error:
        raise ConfigurationError(f"its {METADATA} is refused: {error}") from error


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__

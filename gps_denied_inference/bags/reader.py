"""Camera images of a rosbag2, in the order they were recorded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from gps_denied_inference.errors import (
    ConfigurationError,
    GpsDeniedInferenceError,
    UnknownNameError,
)
from gps_denied_inference.images.compressed import compressed_to_array
from gps_denied_inference.images.raw import image_to_array

IMAGE_TYPES = {
    "sensor_msgs/msg/Image": False,
    "sensor_msgs/msg/CompressedImage": True,
}


@dataclass(frozen=True)
class BagImage:
    """One image message of a bag.

    Attributes:
        message: as ``rosbags`` deserialised it, with the fields of the ROS message.
        is_compressed: ``sensor_msgs/CompressedImage``, else ``sensor_msgs/Image``.
        recorded_ns: ns, when the bag recorded it.
    """

    message: Any
    is_compressed: bool
    recorded_ns: int

    @property
    def stamp_ns(self) -> int:
        """Time of exposure, ns, from the header."""
        stamp = self.message.header.stamp
        return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)

    def decode(self, color: Any, **options: Any) -> npt.NDArray[np.uint8]:
        """Return the pixels as the node's own conversion gives them, (H, W) or (H, W, 3) RGB.

        Raises:
            FrameError: the message does not add up.
        """
        if self.is_compressed:
            return np.asarray(compressed_to_array(self.message, color, **options), np.uint8)
        return np.asarray(image_to_array(self.message, color, **options), np.uint8)


class Bag:
    """A rosbag2: its folder, or its one ``.db3`` or ``.mcap`` file.

    Args:
        path: the bag.
        topic: the image topic; None takes the only one.

    Raises:
        ConfigurationError: no bag, broken, without images, or with several image topics.
        UnknownNameError: the bag has no such image topic.
    """

    def __init__(self, path: Path, topic: str | None = None) -> None:
        self.path = Path(path)
        with self._open() as reader:
            topics = {c.topic for c in reader.connections if c.msgtype in IMAGE_TYPES}
        if topic is None and len(topics) > 1:
            raise ConfigurationError(
                f"bag {self.path} has several image topics, choose one with --topic: "
                + ", ".join(sorted(topics))
            )
        if topic is not None and topic not in topics:
            raise UnknownNameError(f"image topic in bag {self.path}", topic, topics)
        if not topics:
            raise ConfigurationError(
                f"bag {self.path} has no topic of type sensor_msgs/Image or "
                "sensor_msgs/CompressedImage"
            )
        self.topic = topic if topic is not None else next(iter(topics))

    @contextmanager
    def _open(self) -> Iterator[AnyReader]:
        # Bags of older recorders carry no message definitions: those of Jazzy are taken then.
        default = get_typestore(Stores.ROS2_JAZZY)
        try:
            with AnyReader([self.path], default_typestore=default) as reader:
                yield reader
        except GpsDeniedInferenceError:
            raise
        except Exception as error:  # rosbags lets sqlite's, lz4's and struct's errors through
            raise ConfigurationError(f"cannot read bag {self.path}: {error}") from error

    def __len__(self) -> int:
        with self._open() as reader:
            return sum(c.msgcount for c in reader.connections if c.topic == self.topic)

    def images(self) -> Iterator[BagImage]:
        """Yield the topic's images.

        Raises:
            ConfigurationError: the bag cannot be read to its end.
        """
        with self._open() as reader:
            chosen = [
                c for c in reader.connections if c.topic == self.topic and c.msgtype in IMAGE_TYPES
            ]
            for connection, recorded_ns, data in reader.messages(chosen):
                message = reader.deserialize(data, connection.msgtype)
                yield BagImage(message, IMAGE_TYPES[connection.msgtype], recorded_ns)

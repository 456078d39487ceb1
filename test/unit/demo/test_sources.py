"""Folders, videos and bags as sources; what is none of them is refused with its name."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from gps_denied_inference.demo.sources import LONGEST_SIDE, open_source
from gps_denied_inference.errors import ConfigurationError, FrameError, UnknownNameError

STORE = get_typestore(Stores.ROS2_JAZZY)
TYPES = STORE.types


def picture(level: int, width: int = 64, height: int = 48) -> np.ndarray:
    image = np.full((height, width, 3), level, np.uint8)
    image[:, : width // 2, 0] = 255  # blue on the left, in OpenCV's order
    return image


def header(index: int):
    stamp = TYPES["builtin_interfaces/msg/Time"](sec=100, nanosec=index * 50_000_000)
    return TYPES["std_msgs/msg/Header"](stamp=stamp, frame_id="camera")


def write_bag(path: Path, storage: StoragePlugin, topics: dict[str, str], count: int = 3) -> Path:
    """Write ``count`` frames per topic, raw bgr8 with a padded step or PNG."""
    with Writer(path, version=9, storage_plugin=storage) as writer:
        for topic, kind in topics.items():
            connection = writer.add_connection(topic, f"sensor_msgs/msg/{kind}", typestore=STORE)
            for index in range(count):
                image = picture(40 + index)
                if kind == "Image":
                    padded = np.zeros((48, 200), np.uint8)
                    padded[:, :192] = image.reshape(48, 192)
                    message = TYPES["sensor_msgs/msg/Image"](
                        header=header(index), height=48, width=64, encoding="bgr8",
                        is_bigendian=0, step=200, data=padded.reshape(-1),
                    )  # fmt: skip
                else:
                    png = cv2.imencode(".png", image)[1].reshape(-1)
                    message = TYPES["sensor_msgs/msg/CompressedImage"](
                        header=header(index), format="png", data=png
                    )
                data = STORE.serialize_cdr(message, f"sensor_msgs/msg/{kind}")
                writer.write(connection, 1_000 + index, data)
    return path


def assert_frames(source, count: int) -> None:
    frames = list(source)
    assert [frame.index for frame in frames] == list(range(count))
    for frame in frames:
        expected = cv2.cvtColor(picture(40 + frame.index), cv2.COLOR_BGR2RGB)
        np.testing.assert_array_equal(frame.image, expected)
    stamps = [frame.stamp_ns for frame in frames]
    assert stamps == sorted(set(stamps))
    assert source.motion(0, 1) is None


def test_a_folder_comes_in_the_order_of_its_names(tmp_path: Path) -> None:
    for index in (2, 0, 1):
        cv2.imwrite(str(tmp_path / f"frame_{index}.png"), picture(40 + index))
    (tmp_path / "notes.txt").write_text("no image")
    source = open_source(str(tmp_path))
    assert source.kind == "folder"
    assert_frames(source, 3)
    assert_frames(source, 3)  # iterating again gives the same


@pytest.mark.parametrize("storage", [StoragePlugin.SQLITE3, StoragePlugin.MCAP])
@pytest.mark.parametrize("kind", ["Image", "CompressedImage"])
def test_a_bag_as_folder_and_as_file(tmp_path: Path, storage, kind: str) -> None:
    bag = write_bag(tmp_path / "flight", storage, {"/camera": kind})
    file = next(entry for entry in bag.iterdir() if entry.suffix in (".db3", ".mcap"))
    for path in (bag, file):
        source = open_source(str(path))
        assert source.kind == "bag"
        assert_frames(source, 3)
    assert next(iter(open_source(str(bag)))).stamp_ns == 100_000_000_000


def test_a_bag_with_several_image_topics_needs_a_choice(tmp_path: Path) -> None:
    bag = write_bag(
        tmp_path / "two", StoragePlugin.MCAP, {"/left": "Image", "/right": "CompressedImage"}
    )
    with pytest.raises(ConfigurationError, match="several image topics.*/left, /right"):
        open_source(str(bag))
    assert_frames(open_source(str(bag), topic="/right"), 3)
    with pytest.raises(UnknownNameError, match="/middle.*known are /left, /right"):
        open_source(str(bag), topic="/middle")


def test_the_same_stamp_twice_is_told_apart(tmp_path: Path) -> None:
    bag = tmp_path / "still"
    with Writer(bag, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        kind = "sensor_msgs/msg/CompressedImage"
        connection = writer.add_connection("/camera", kind, typestore=STORE)
        png = cv2.imencode(".png", picture(40))[1].reshape(-1)
        message = TYPES[kind](header=header(0), format="png", data=png)
        for index in range(3):
            writer.write(connection, index, STORE.serialize_cdr(message, kind))
    stamps = [frame.stamp_ns for frame in open_source(str(bag))]
    assert len(set(stamps)) == 3


def test_a_video(tmp_path: Path) -> None:
    path = tmp_path / "flight.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 20.0, (64, 48))
    assert writer.isOpened()
    for index in range(4):
        writer.write(picture(40 + 30 * index))
    writer.release()
    frames = list(open_source(str(path)))
    assert [frame.index for frame in frames] == [0, 1, 2, 3]
    assert frames[1].stamp_ns - frames[0].stamp_ns == 50_000_000
    for frame in frames:  # JPEG changes values a little; red and blue must not be exchanged
        left = frame.image[:, :24].mean((0, 1))
        assert left[2] > 240
        assert left[0] < 150


def test_large_frames_are_made_smaller_and_that_is_said(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "large.png"), picture(40, 4000, 1000))
    source = open_source(str(tmp_path))
    (frame,) = source
    assert frame.image.shape == (480, LONGEST_SIDE, 3)
    assert source.note == "frames of 4000 x 1000 px were made smaller, to 1920 x 480 px"


def test_the_limit_holds(tmp_path: Path) -> None:
    for index in range(5):
        cv2.imwrite(str(tmp_path / f"{index}.png"), picture(40 + index))
    assert_frames(open_source(str(tmp_path), limit=2), 2)
    assert len(list(open_source(None, limit=3))) == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "holds no image"),
        (lambda path: path.write_text("text"), "neither a video nor"),
    ],
)
def test_what_is_no_source_is_refused(tmp_path: Path, make, message: str) -> None:
    make(tmp_path / "thing")
    with pytest.raises(ConfigurationError, match=message):
        open_source(str(tmp_path / "thing"))


@pytest.mark.parametrize("suffix", [".mcap", ".db3"])
@pytest.mark.parametrize("content", [b"", b"not a bag at all" * 100])
def test_a_broken_bag_is_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    (tmp_path / f"broken{suffix}").write_bytes(content)
    with pytest.raises(ConfigurationError, match="cannot read bag .*broken"):
        open_source(str(tmp_path / f"broken{suffix}"))


def test_a_bag_without_images_is_refused(tmp_path: Path) -> None:
    kind = "std_msgs/msg/Header"
    with Writer(tmp_path / "bag", version=9) as writer:
        connection = writer.add_connection("/header", kind, typestore=STORE)
        writer.write(connection, 1, STORE.serialize_cdr(header(0), kind))
    with pytest.raises(ConfigurationError, match="no topic of type sensor_msgs/Image"):
        open_source(str(tmp_path / "bag"))


def test_an_image_that_does_not_decode_is_named(tmp_path: Path) -> None:
    (tmp_path / "torn.png").write_bytes(b"\x89PNG torn")
    with pytest.raises(FrameError, match=r"torn\.png does not decode"):
        list(open_source(str(tmp_path)))

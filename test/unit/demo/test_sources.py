"""Folders, videos and bags as sources; what is none of them is refused with its name."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path

import cv2
import hostile_images as hostile
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from gps_denied_inference.demo.sources import LONGEST_SIDE, open_source
from gps_denied_inference.errors import ConfigurationError, UnknownNameError
from gps_denied_inference.images.raw import scale_to_8_bit

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
    assert source.move(0, 1, np.zeros((3, 2))) is None
    assert source.surfaces(0, np.zeros((3, 2))) is None


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


def test_an_image_that_does_not_decode_is_left_out_and_counted(tmp_path: Path) -> None:
    """In a folder as in a bag: the others go on, at their own places."""
    for index in range(4):
        cv2.imwrite(str(tmp_path / f"{index}.jpg"), picture(40 + index))
    torn = tmp_path / "1.jpg"
    torn.write_bytes(torn.read_bytes()[:-20])  # OpenCV only warns of it
    (tmp_path / "2.jpg").write_bytes(hostile.jpeg_of_many_scans(2000, 64, 48))
    source = open_source(str(tmp_path))
    for _ in range(2):
        assert [frame.index for frame in source] == [0, 3]
        assert {name: error.reason for name, error in source.refused.items()} == {
            "1.jpg": "corrupt",
            "2.jpg": "too_large",
        }
        assert "1.jpg: JPEG" in str(source.refused["1.jpg"])


def test_a_bad_frame_of_a_bag_is_left_out_and_counted(tmp_path: Path) -> None:
    kind = "sensor_msgs/msg/CompressedImage"
    good = cv2.imencode(".jpg", picture(40))[1].tobytes()
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/camera", kind, typestore=STORE)
        for index, data in enumerate((good, good[:-20], hostile.damaged(good), good)):
            pixels = np.frombuffer(data, np.uint8)
            message = TYPES[kind](header=header(index), format="jpeg", data=pixels)
            writer.write(connection, index, STORE.serialize_cdr(message, kind))
        writer.write(connection, 4, b"\0\1\0\0\1\2")  # no such message at all
        message = TYPES[kind](header=header(5), format="jpeg", data=np.frombuffer(good, np.uint8))
        writer.write(connection, 5, STORE.serialize_cdr(message, kind))
    source = open_source(str(tmp_path / "bag"))
    assert [frame.index for frame in source] == [0, 3, 5]
    reasons = [error.reason for error in source.refused.values()]
    assert reasons == ["corrupt", "corrupt", "malformed"]


def test_a_thermal_folder_is_scaled_by_the_nodes_rule(tmp_path: Path) -> None:
    thermal = np.arange(64 * 48, dtype=np.uint16).reshape(48, 64) + 7000
    cv2.imwrite(str(tmp_path / "0.tiff"), thermal)
    for rule in ("minmax", "full"):
        (frame,) = open_source(str(tmp_path), depth_scaling=rule)
        np.testing.assert_array_equal(frame.image[..., 1], scale_to_8_bit(thermal, rule))


def test_one_image_is_a_source_of_one_frame(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "one.png"), picture(40))
    source = open_source(str(tmp_path / "one.png"))
    assert source.kind == "image"
    assert_frames(source, 1)


def test_a_turned_video_keeps_its_raster(tmp_path: Path) -> None:
    path = tmp_path / "flight.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 20.0, (64, 48))
    for index in range(3):
        writer.write(picture(40 + index))
    writer.release()
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000)
    path.write_bytes(data)
    capture = cv2.VideoCapture(str(path))
    assert capture.read()[1].shape == (64, 48, 3), "OpenCV turns it by itself"
    capture.release()
    assert {frame.image.shape for frame in open_source(str(path))} == {(48, 64, 3)}


def test_frames_of_a_video_are_bounded_before_one_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "flight.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 20.0, (64, 48))
    writer.write(picture(40))
    writer.release()
    with pytest.raises(ConfigurationError, match="64 x 48 px is refused: max_image_pixels is 3000"):
        open_source(str(path), max_pixels=3000)


@pytest.mark.parametrize("harm", ["torn frame", "cut"])
def test_a_bad_frame_of_a_video_is_left_out_and_counted(tmp_path: Path, harm: str) -> None:
    path = tmp_path / "flight.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 20.0, (64, 48))
    for index in range(6):
        writer.write(picture(40 + index))
    writer.release()
    data = bytearray(path.read_bytes())
    frames = [match.start() for match in re.finditer(b"\xff\xd8\xff", data)]
    if harm == "torn frame":
        data[frames[2] : frames[3] - 8] = bytes(frames[3] - 8 - frames[2])
    else:
        del data[frames[3] :]
    path.write_bytes(data)
    source = open_source(str(path))
    found = [frame.index for frame in source]
    if harm == "torn frame":
        assert found == [0, 1, 3, 4, 5]
        assert {k: e.reason for k, e in source.refused.items()} == {"video frame 2": "corrupt"}
        assert source.notes == []
    else:
        assert found == [0, 1, 2]
        (note,) = source.notes
        assert "breaks off after 3 of the 6 frames" in note


def test_a_pipe_is_no_source(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(ConfigurationError, match="neither a folder nor a regular file"):
        open_source(str(tmp_path / "pipe.mp4"))
    with pytest.raises(ConfigurationError, match="~nosuchuser"):
        open_source("~nosuchuser/flight")

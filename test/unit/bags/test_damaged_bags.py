"""Bags that lost a part: what is there is read, and what is missing is said."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from mcap.writer import Writer as McapWriter
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from gps_denied_inference.bags.layout import beside, data_files
from gps_denied_inference.bags.reader import Bag
from gps_denied_inference.bags.replay import replay
from gps_denied_inference.cli.main import main
from gps_denied_inference.demo.sources import open_source
from gps_denied_inference.errors import ConfigurationError, StorageError
from gps_denied_inference.settings import Settings

STORE = get_typestore(Stores.ROS2_JAZZY)
TYPES = STORE.types
KIND = "sensor_msgs/msg/Image"
PLUGINS = {"mcap": StoragePlugin.MCAP, "db3": StoragePlugin.SQLITE3}
COUNT = 20
RNG = np.random.default_rng(2)


def frame(index: int) -> bytes:
    """A frame of noise, 12 kB."""
    stamp = TYPES["builtin_interfaces/msg/Time"](sec=7, nanosec=index)
    message = TYPES[KIND](
        header=TYPES["std_msgs/msg/Header"](stamp=stamp, frame_id="cam"),
        height=96, width=128, encoding="mono8", is_bigendian=0, step=128,
        data=RNG.integers(0, 255, 96 * 128, np.uint8),
    )  # fmt: skip
    return bytes(STORE.serialize_cdr(message, KIND))


def write(path: Path, suffix: str, first: int = 0) -> Path:
    """Write a bag of COUNT frames, five to a chunk; return its data file."""
    with Writer(path, version=9, storage_plugin=PLUGINS[suffix]) as writer:
        connection = writer.add_connection("/cam", KIND, typestore=STORE)
        for index in range(first, first + COUNT):
            writer.write(connection, 1000 + index, frame(index))
            if suffix == "mcap" and index % 5 == 4:
                writer.storage.close_chunk()
    (file,) = data_files(path)
    return file


def write_with_checksums(file: Path) -> Path:
    """Write COUNT frames as rosbag2's own recorder does: compressed chunks with checksums."""
    with open(file, "wb") as stream:
        writer = McapWriter(stream, chunk_size=60_000)
        writer.start("ros2")
        definition = STORE.generate_msgdef(KIND)[0].encode()
        schema = writer.register_schema(KIND, "ros2msg", definition)
        channel = writer.register_channel("/cam", "cdr", schema)
        for index in range(COUNT):
            writer.add_message(channel, 1000 + index, frame(index), 1000 + index)
        writer.finish()
    return file


def stamps(bag: Bag) -> list[int]:
    return [image.stamp_ns - 7_000_000_000 for image in bag.images()]


@pytest.mark.parametrize("suffix", PLUGINS)
def test_data_files_without_metadata(tmp_path: Path, suffix: str) -> None:
    flight = tmp_path / "flight"
    flight.mkdir()
    for part, name in enumerate((f"flight_2.{suffix}", f"flight_10.{suffix}")):
        write(tmp_path / str(part), suffix, first=COUNT * part).rename(flight / name)
    bag = Bag(flight)
    assert len(bag) == 2 * COUNT
    assert stamps(bag) == list(range(2 * COUNT))
    (note,) = bag.notes
    assert (
        f"no metadata.yaml: its 2 data file(s) are read by name; 'ros2 bag reindex {flight}" in note
    )
    source = open_source(str(flight))
    assert (source.kind, len(list(source))) == ("bag", 2 * COUNT)


@pytest.mark.parametrize("suffix", PLUGINS)
@pytest.mark.parametrize("share", [0.5, 0.9])
@pytest.mark.parametrize("form", ["file", "folder", "folder without metadata"])
def test_a_file_that_breaks_off_is_read_up_to_there(
    tmp_path: Path, suffix: str, share: float, form: str
) -> None:
    file = write(tmp_path / "flight", suffix)
    os.truncate(file, int(file.stat().st_size * share))
    if form == "folder without metadata":
        (file.parent / "metadata.yaml").unlink()
    bag = Bag(file if form == "file" else file.parent)
    found = stamps(bag)
    assert found == list(range(len(found)))
    assert COUNT * share - 6 <= len(found) == len(bag) < COUNT
    notes = "\n".join(bag.notes)
    assert re.search(rf"{file.name} is damaged .*: {len(found)} images of it can be read", notes)
    assert ("mcap recover" if suffix == "mcap" else ".recover") in notes


def test_a_damaged_chunk_costs_its_own_messages_only(tmp_path: Path) -> None:
    file = write_with_checksums(tmp_path / "flight.mcap")
    assert stamps(Bag(file)) == list(range(COUNT))
    data = bytearray(file.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(64)
    file.write_bytes(data)
    bag = Bag(file)
    found = stamps(bag)
    assert found == sorted(set(found))
    assert COUNT - 5 <= len(found) < COUNT
    assert found[-1] == COUNT - 1
    assert any("flight.mcap is damaged" in note for note in bag.notes)


@pytest.mark.parametrize("count", ["-3", "1e300", "99999999999999999999999999", "many", "[1, 2]"])
def test_an_impossible_message_count_is_said_and_the_files_are_read(
    tmp_path: Path, count: str, capsys: pytest.CaptureFixture[str]
) -> None:
    metadata = write(tmp_path / "flight", "mcap").parent / "metadata.yaml"
    text = metadata.read_text()
    assert f"message_count: {COUNT}" in text
    metadata.write_text(text.replace(f"message_count: {COUNT}", f"message_count: {count}"))
    bag = Bag(metadata.parent)
    assert len(bag) == COUNT
    assert stamps(bag) == list(range(COUNT))
    (note,) = bag.notes
    assert "message_count" in note or "cannot read bag" in note
    arguments = ["--set", "runtime=fake", "--out", str(tmp_path / "out")]
    arguments += ["--set", f"engine_cache_directory={tmp_path / 'engines'}"]
    assert main(["replay", str(metadata.parent), *arguments]) == 0
    output = capsys.readouterr()
    assert f"{COUNT} answered" in output.out
    assert "Traceback" not in output.err
    assert note in output.err


def test_metadata_that_is_no_file_or_too_deep(tmp_path: Path) -> None:
    metadata = write(tmp_path / "flight", "mcap").parent / "metadata.yaml"
    metadata.write_text("[" * 20_000)
    assert len(Bag(metadata.parent)) == COUNT
    metadata.unlink()
    os.mkfifo(metadata)
    bag = Bag(metadata.parent)
    assert len(bag) == COUNT
    assert "no regular file" in bag.notes[0]


def test_a_pipe_is_no_bag(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mcap")
    with pytest.raises(ConfigurationError, match=r"cannot read .*pipe.mcap: it is no regular file"):
        Bag(tmp_path / "pipe.mcap")


@pytest.mark.parametrize(
    ("bag", "expected"),
    [
        ("flight.2024.01/", "flight.2024.01_features"),
        ("flight.2024.01/flight.2024.01_0.mcap", "flight.2024.01_0_features"),
        ("loose/take.2.mcap", "loose/take.2_features"),
    ],
)
def test_the_default_output_keeps_dots_and_lies_in_no_bag(
    tmp_path: Path, bag: str, expected: str
) -> None:
    path = tmp_path / bag
    if bag.endswith("/"):
        path.mkdir()
        (path / "metadata.yaml").touch()
    else:
        path.parent.mkdir()
        path.touch()
    assert beside(path, "_features") == tmp_path / expected


def test_an_output_inside_the_bag_is_refused(tmp_path: Path) -> None:
    bag = write(tmp_path / "flight", "mcap").parent
    before = sorted(bag.iterdir())
    with pytest.raises(StorageError, match="lies inside the bag"):
        replay(Bag(bag), Settings(runtime="fake"), bag / "out")
    assert sorted(bag.iterdir()) == before

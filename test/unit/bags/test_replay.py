"""Replay without ROS, over the fake runtime: every image answered or counted, results as MCAP."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from broken_outputs import SPOILT_FEATURES, StandInBrokenRuntime
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from gps_denied_inference import networks
from gps_denied_inference.bags.messages import typestore
from gps_denied_inference.bags.reader import Bag
from gps_denied_inference.bags.replay import replay
from gps_denied_inference.cli import replay as command
from gps_denied_inference.cli.main import main
from gps_denied_inference.errors import ConfigurationError, StorageError, UnknownNameError
from gps_denied_inference.pipeline.camera import CameraModel, calibration_fields
from gps_denied_inference.pipeline.feature_cloud import LAYOUTS
from gps_denied_inference.settings import Settings

STORE = get_typestore(Stores.ROS2_JAZZY)
TYPES = STORE.types
KIND = "sensor_msgs/msg/Image"
SHOWN = ("image_width", "image_height", "max_keypoints", "runtime", "engine_cache_directory")


def image(index: int, encoding: str = "mono8", missing: int = 0):
    stamp = TYPES["builtin_interfaces/msg/Time"](sec=7, nanosec=index)
    header = TYPES["std_msgs/msg/Header"](stamp=stamp, frame_id="cam")
    rng = np.random.default_rng(3)
    # Patches of 4 px: what is as fine as a sensor's noise is not tracked.
    patches = np.kron(rng.integers(0, 255, (24, 32), np.uint8), np.ones((4, 4), np.uint8))
    pixels = np.roll(patches, 2 * index, axis=1)
    data = pixels.reshape(-1)[: pixels.size - missing]
    return TYPES[KIND](
        header=header, height=96, width=128, encoding=encoding, is_bigendian=0, step=128, data=data
    )


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    """Five frames at 10 Hz, the third torn, the fourth of an encoding that does not exist."""
    path = tmp_path / "flight"
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/cam", KIND, typestore=STORE)
        torn = (image(0), image(1), image(2, missing=9), image(3, encoding="what8"), image(4))
        for index, message in enumerate(torn):
            writer.write(connection, 100_000_000 * index, STORE.serialize_cdr(message, KIND))
    return path


def fake(tmp_path: Path, **changes) -> Settings:
    small = {"image_width": 128, "image_height": 96, "max_keypoints": 50, "runtime": "fake"}
    cache = {"engine_cache_directory": str(tmp_path / "engines")}
    return Settings.from_mapping({**small, **cache, **changes})


def messages(path: Path) -> list:
    with AnyReader([path]) as reader:
        return [
            (connection.topic, time, reader.deserialize(data, connection.msgtype))
            for connection, time, data in reader.messages()
        ]


def test_every_image_is_answered_or_counted(tmp_path: Path, bag: Path) -> None:
    result = replay(Bag(bag), fake(tmp_path), tmp_path / "out")
    assert result.frames == 5
    assert result.answered == 3
    assert dict(result.drops) == {"short_data": 1, "unknown_encoding": 1}
    assert result.recorded == pytest.approx(0.4)
    assert result.readback is not None
    assert result.readback.runtime == "fake"
    assert set(result.latency_ms()) >= {"convert", "infer", "end_to_end"}

    written = messages(tmp_path / "out")
    assert [entry[0] for entry in written] == ["/inference_node/features"] * 3
    assert [entry[1] for entry in written] == [0, 100_000_000, 400_000_000]
    assert [entry[2].header.stamp.nanosec for entry in written] == [0, 1, 4]
    features = written[0][2]
    assert features.header.frame_id == "cam"
    assert (features.image_width, features.image_height) == (128, 96)
    assert features.count > 0
    assert features.keypoints.shape == (2 * features.count,)
    assert features.descriptors.shape == (features.count * features.descriptor_dim,)
    assert len(features.track_ids) == 0


def dark(index: int):
    message = image(index)
    message.data[:] = 0
    return message


def unstamped(index: int):
    message = image(index)
    message.header.stamp.sec = message.header.stamp.nanosec = 0
    return message


def bag_of(path: Path, frames: list) -> Path:
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/cam", KIND, typestore=STORE)
        for index, message in enumerate(frames):
            writer.write(connection, 50_000_000 * index, STORE.serialize_cdr(message, KIND))
    return path


def test_what_the_node_would_have_said_of_the_flight_is_told(tmp_path: Path, capsys) -> None:
    """Thirty black frames amid good ones: found from the twentieth on, and no longer afterwards."""
    frames = [image(i) if not 10 <= i < 40 else dark(i) for i in range(50)]
    path = bag_of(tmp_path / "covered", frames)
    arguments = [f"{k}={v}" for k, v in vars(fake(tmp_path)).items() if k in SHOWN]
    command_line = ["replay", str(path), "--json", str(tmp_path / "report.json")]
    assert main([*command_line, *(w for a in arguments for w in ("--set", a))]) == 0
    found = "frames show fewer than 20 features: they are dark"
    [line] = [line for line in capsys.readouterr().err.splitlines() if "gave no result" in line]
    assert found in line
    assert line.startswith("gdi: task 'extract' gave no result: the last 30 ")
    assert line.endswith("(so in 11 of 50 frames)")
    [finding] = json.loads((tmp_path / "report.json").read_text())["findings"]
    assert found in finding


def test_each_cause_is_told_once_and_a_good_flight_has_none(tmp_path: Path) -> None:
    settings = fake(tmp_path, task="track")
    good = bag_of(tmp_path / "good", [image(i) for i in range(30)])
    assert replay(Bag(good), settings, tmp_path / "a").findings == []
    bad = bag_of(tmp_path / "bad", [unstamped(i) for i in range(30)])
    [line] = replay(Bag(bad), settings, tmp_path / "b").findings
    assert line.startswith("the stamps of the last 30 frames are zero, so no track can go on")
    assert line.endswith("(so in 26 of 30 frames)")


def test_tracks_and_matches_to_the_key_frame(tmp_path: Path, bag: Path) -> None:
    settings = fake(tmp_path, task="track", geometry="homography")
    replay(Bag(bag), settings, tmp_path / "out")
    written = messages(tmp_path / "out")
    tracked = [message for topic, _, message in written if topic == "/inference_node/features"]
    assert all(len(message.track_ids) == message.count for message in tracked)
    matched = [message for topic, _, message in written if topic == "/inference_node/matches"]
    assert matched, "the second frame has matches to the first"
    first = matched[0]
    assert first.reference == "keyframe"
    assert first.matcher == "mutual_nearest_neighbour"
    assert first.reference_header.stamp.nanosec < first.header.stamp.nanosec
    assert first.query_points.shape == first.reference_points.shape == (2 * first.count,)
    assert first.model.shape == (9,)
    if first.model_type == 0:
        assert np.isnan(first.model).all()
        assert len(first.inliers) == 0
    else:
        assert int(first.inliers.sum()) == first.inlier_count


CAMERA = "sensor_msgs/msg/CameraInfo"


def camera_info(width: int = 128, focal: float = 100.0):
    stamp = TYPES["builtin_interfaces/msg/Time"](sec=7, nanosec=0)
    return TYPES[CAMERA](
        header=TYPES["std_msgs/msg/Header"](stamp=stamp, frame_id="cam"),
        height=96,
        width=width,
        distortion_model="plumb_bob",
        d=np.array([-0.1, 0.0, 0.0, 0.0, 0.0]),
        k=np.array([focal, 0.0, 63.5, 0.0, focal, 47.5, 0.0, 0.0, 1.0]),
        r=np.eye(3).ravel(),
        p=np.zeros(12),
        binning_x=0,
        binning_y=0,
        roi=TYPES["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False),
    )


def calibrated_bag(path: Path, calibration, topic: str = "/cam/camera_info") -> Path:
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        images = writer.add_connection("/cam/image_raw", KIND, typestore=STORE)
        infos = writer.add_connection(topic, CAMERA, typestore=STORE)
        for index in range(5):
            writer.write(images, 50_000_000 * index, STORE.serialize_cdr(image(index), KIND))
            if index == 2:  # calibrations may be recorded late
                writer.write(infos, 50_000_000 * index, STORE.serialize_cdr(calibration, CAMERA))
    return path


def clouds_of(written: list) -> list:
    return [message for topic, _, message in written if topic == "/inference_node/feature_cloud"]


def test_clouds_of_tracks_need_only_the_calibration_beside_the_images(tmp_path: Path) -> None:
    settings = fake(tmp_path, task="track", cloud_layout="vins_fusion", cloud_max_points=20)
    bag = Bag(calibrated_bag(tmp_path / "bag", camera_info()))
    result = replay(bag, settings, tmp_path / "out")
    assert result.notes == []
    written = messages(tmp_path / "out")
    clouds = clouds_of(written)
    tracked = {
        message.header.stamp.nanosec: message
        for topic, _, message in written
        if topic == "/inference_node/features"
    }
    assert [cloud.header.stamp.nanosec for cloud in clouds] == [1, 2, 3, 4]
    for cloud in clouds:
        assert cloud.header.frame_id == "cam"
        assert 0 < len(cloud.points) <= 20
        channels = {channel.name: channel.values for channel in cloud.channels}
        assert list(channels) == list(LAYOUTS["vins_fusion"])
        normal = np.array([(point.x, point.y, point.z) for point in cloud.points])
        assert (normal[:, 2] == 1.0).all()
        lens = CameraModel.from_info(**calibration_fields(camera_info()))
        pixels = np.column_stack([channels["u"], channels["v"]])
        assert np.abs(lens.project(normal[:, :2]) - pixels).max() < 0.01
        keypoints = tracked[cloud.header.stamp.nanosec].keypoints.reshape(-1, 2)
        assert {tuple(p) for p in pixels.tolist()} <= {tuple(p) for p in keypoints.tolist()}


@pytest.mark.parametrize(
    ("calibration", "topic", "note"),
    [
        (camera_info(), "/other/camera_info", "the bag has no /cam/camera_info"),
        (camera_info(focal=0.0), "/cam/camera_info", "/cam/camera_info was refused: "),
        (camera_info(width=640), "/cam/camera_info", "camera_info describes 640 x 96 px"),
    ],
)
def test_what_clouds_lack_is_noted(tmp_path: Path, calibration, topic: str, note: str) -> None:
    bag = Bag(calibrated_bag(tmp_path / "bag", calibration, topic))
    result = replay(bag, fake(tmp_path, task="track"), tmp_path / "out")
    assert result.answered == 5
    assert clouds_of(messages(tmp_path / "out")) == []
    assert [line for line in result.notes if line.startswith(f"no feature_cloud: {note}")]


def test_a_calibration_is_read_from_a_bag_that_breaks_off(tmp_path: Path) -> None:
    path = calibrated_bag(tmp_path / "bag", camera_info())
    (path / "metadata.yaml").unlink()
    file = path / "bag.mcap"
    file.write_bytes(file.read_bytes()[:-40])
    bag = Bag(path)
    assert any("damaged" in note for note in bag.notes)
    assert bag.calibration().k[0] == 100.0


def test_matches_to_a_reference_file(tmp_path: Path, bag: Path) -> None:
    reference = tmp_path / "map.png"
    cv2.imwrite(str(reference), image(0).data.reshape(96, 128))
    settings = fake(tmp_path, task="match", reference_file=str(reference))
    replay(Bag(bag), settings, tmp_path / "out")
    matched = [entry[2] for entry in messages(tmp_path / "out") if entry[0].endswith("/matches")]
    assert len(matched) == 3
    assert {message.reference for message in matched} == {"map.png"}
    assert matched[0].reference_header.frame_id == ""


def test_matching_without_a_reference_is_refused(tmp_path: Path, bag: Path) -> None:
    with pytest.raises(ConfigurationError, match="set reference_file"):
        replay(Bag(bag), fake(tmp_path, task="match"), tmp_path / "out")


def test_an_existing_bag_is_left_alone(tmp_path: Path, bag: Path) -> None:
    replay(Bag(bag), fake(tmp_path), tmp_path / "out")
    before = [(entry.name, entry.stat().st_mtime_ns) for entry in (tmp_path / "out").iterdir()]
    with pytest.raises(StorageError, match="exists already"):
        replay(Bag(bag), fake(tmp_path), tmp_path / "out")
    assert before == [(e.name, e.stat().st_mtime_ns) for e in (tmp_path / "out").iterdir()]


def test_a_failed_replay_leaves_no_half_bag(tmp_path: Path, bag: Path) -> None:
    def stop(frames: int) -> None:
        if frames == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replay(Bag(bag), fake(tmp_path), tmp_path / "out", on_frame=stop)
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_is_a_clear_error(tmp_path: Path, bag: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write bag .*out"):
        replay(Bag(bag), fake(tmp_path), tmp_path / "file" / "out")


def test_our_messages_are_those_of_the_msg_files() -> None:
    store = typestore()
    for name in ("FeatureArray", "MatchArray", "InferenceStatus", "ThermalState"):
        assert f"gps_denied_inference/msg/{name}" in store.types
    assert store.types["gps_denied_inference/msg/MatchArray"].MODEL_FUNDAMENTAL == 2


def test_values_are_typed_as_the_parameters_are() -> None:
    rows = {row.name: row for row in Settings.table()}
    assert command._parse("max_keypoints=7", rows) == ("max_keypoints", 7)
    assert command._parse("min_cosine=0.5", rows) == ("min_cosine", 0.5)
    assert command._parse("cuda_graph=false", rows) == ("cuda_graph", False)
    assert command._parse("reference_file=a=b", rows) == ("reference_file", "a=b")
    with pytest.raises(ConfigurationError, match="NAME=VALUE"):
        command._parse("max_keypoints", rows)
    with pytest.raises(UnknownNameError, match="unknown parameter 'no_such'"):
        Settings.from_mapping(dict([command._parse("no_such=1", rows)]))


def test_the_command_reports_and_puts_the_bag_beside_the_old_one(
    tmp_path: Path, bag: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = fake(tmp_path)
    arguments = ["replay", str(bag)]
    for name in ("image_width", "image_height", "max_keypoints", "runtime"):
        arguments += ["--set", f"{name}={getattr(settings, name)}"]
    arguments += ["--set", f"engine_cache_directory={tmp_path / 'engines'}"]
    assert main(arguments) == 0
    assert (tmp_path / "flight_features" / "metadata.yaml").exists()
    assert "5 frames of /cam, 3 answered, 2 dropped" in capsys.readouterr().out


def test_spoilt_answers_are_counted_as_the_node_does(bag, tmp_path, monkeypatch):
    def stand_in(name, **options):
        return StandInBrokenRuntime(**options)

    monkeypatch.setattr(networks, "create_runtime", stand_in)
    spoil = staticmethod(SPOILT_FEATURES["nan_descriptor"])
    monkeypatch.setattr(StandInBrokenRuntime, "spoil", spoil)
    done = replay(Bag(bag), fake(tmp_path), tmp_path / "out")
    assert done.drops["invalid_output"] == 3
    assert (done.frames, done.answered) == (5, 0)

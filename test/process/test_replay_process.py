"""Offline replay gives the very features that the live node gives on the same frames."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from node_process import driven
from rclpy.qos import qos_profile_sensor_data
from rosbags.highlevel import AnyReader
from sensor_msgs.msg import CompressedImage

from gps_denied_inference.bags.reader import Bag

SETTINGS = {
    "runtime": "onnxruntime",
    "device": "cpu",
    "image_width": 640,
    "image_height": 384,
    "max_keypoints": 500,
    "threads": 1,
}


def live_features(folder: Path, bag: Bag) -> dict[int, object]:
    """Send every compressed image of the bag to a node; return its answers by stamp in ns."""
    with driven(folder, parameters={**SETTINGS, "image_transport": "compressed"}) as (_, driver):
        publisher = driver.node.create_publisher(
            CompressedImage, "image/compressed", qos_profile_sensor_data
        )
        assert driver.configure()
        assert driver.transition(3)  # activate; the driver's own camera is a raw one
        driver.wait_until(lambda: publisher.get_subscription_count() > 0, "the subscription")
        for image in bag.images():
            message = CompressedImage(format=image.message.format)
            message.header.stamp.sec = image.message.header.stamp.sec
            message.header.stamp.nanosec = image.message.header.stamp.nanosec
            message.header.frame_id = image.message.header.frame_id
            message.data = image.message.data.tobytes()
            before = len(driver.features)
            for _ in range(5):  # a best-effort frame may be lost on its way
                publisher.publish(message)
                end = time.monotonic() + 5.0
                while len(driver.features) == before and time.monotonic() < end:
                    time.sleep(0.005)
                if len(driver.features) > before:
                    break
        return {
            answer.header.stamp.sec * 1_000_000_000 + answer.header.stamp.nanosec: answer
            for answer in driver.features
        }


@pytest.mark.parametrize("kind", ["db3", "mcap"])
def test_replay_equals_the_live_node(tmp_path: Path, shared_data: Path, kind: str) -> None:
    path = shared_data / f"rosbag_brighton_{kind}"
    bag = Bag(path)
    live = live_features(tmp_path, bag)
    assert len(live) == len(bag) == 18

    command = [sys.executable, "-m", "gps_denied_inference", "replay", str(path)]
    command += ["--out", str(tmp_path / "replayed"), "--json", str(tmp_path / "replay.json")]
    for name, value in {**SETTINGS, "engine_cache_directory": tmp_path / "engines"}.items():
        command += ["--set", f"{name}={value}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr

    report = json.loads((tmp_path / "replay.json").read_text())
    assert report["frames"] == {"replayed": 18, "answered": 18, "dropped": 0, "drop_reasons": {}}
    assert report["times_real_time"] > 1.0
    assert list((tmp_path / "replayed").glob("*.mcap"))
    compared = 0
    with AnyReader([tmp_path / "replayed"]) as reader:
        for connection, _, data in reader.messages():
            assert connection.topic == "/inference_node/features"
            assert connection.msgtype == "gps_denied_inference/msg/FeatureArray"
            ours = reader.deserialize(data, connection.msgtype)
            stamp = ours.header.stamp
            theirs = live[stamp.sec * 1_000_000_000 + stamp.nanosec]
            assert ours.header.frame_id == theirs.header.frame_id
            for name in ("image_width", "image_height", "model", "model_sha256", "count"):
                assert getattr(ours, name) == getattr(theirs, name), name
            assert ours.count > 100
            for name in ("keypoints", "scores", "descriptors"):
                np.testing.assert_array_equal(
                    getattr(ours, name), np.asarray(getattr(theirs, name), np.float32), name
                )
            compared += 1
    assert compared == 18

"""What a real node receives: latched and volatile topics alike; counts are the sender's."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

import numpy as np
from node_process import ACTIVE, LATCHED, Driver, driven, image_message, textured_frames
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image, PointCloud

from gps_denied_inference.msg import MatchArray
from gps_denied_inference.pipeline.accounting import LOST

CHEAP = {
    "runtime": "fake",
    "image_width": 320,
    "image_height": 256,
    "max_keypoints": 100,
    "status_rate": 10.0,
}
NO_PROFILE = {"FASTRTPS_DEFAULT_PROFILES_FILE": "", "FASTDDS_DEFAULT_PROFILES_FILE": ""}
PROFILES = {"latched": LATCHED, "volatile": qos_profile_sensor_data}


def calibration(fx: float = 300.0) -> CameraInfo:
    message = CameraInfo(width=320, height=240, distortion_model="plumb_bob")
    message.header.frame_id = "camera"
    message.k = [fx, 0.0, 159.5, 0.0, 300.0, 119.5, 0.0, 0.0, 1.0]
    message.d = [0.0] * 5
    return message


def fly_until(driver: Driver, heard: list[object], what: str) -> None:
    """Send frames until something is heard."""
    end = time.monotonic() + 20.0
    while not heard:
        assert time.monotonic() < end, f"no {what}; {driver.target.output}"
        driver.publish_until_answered(3)  # the same three places each time: tracks live


@pytest.mark.skipif(
    os.environ.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp") != "rmw_fastrtps_cpp",
    reason="what is tried is a fault of Fast DDS, and RMW_IMPLEMENTATION names another",
)
def test_frames_in_is_what_the_sender_numbered(tmp_path: Path) -> None:
    """Fast DDS's own count of lost frames is off by 2**31 when a large one is lost."""
    small = image_message(next(textured_frames(120, 160)))  # one datagram: the large ones are many
    large = image_message(np.zeros((800, 1280, 3), np.uint8), encoding="bgr8")
    with driven(tmp_path, parameters=CHEAP, environment=NO_PROFILE) as (process, driver):
        assert driver.configure(), process.output
        assert driver.activate(), process.output
        driver.publish_until_answered(2)

        def settled() -> int:
            """Return frames_in after all that was sent has been settled."""
            count = len(driver.statuses)
            driver.wait_until(lambda: len(driver.statuses) >= count + 10, "ten statuses")
            return int(driver.statuses[-1].frames_in)

        before = settled()
        sent = 0
        for number in range(31):
            message = large if number % 10 == 9 else small
            message.header.stamp.sec = 1000 + number
            driver.camera.publish(message)
            sent += 1
            time.sleep(0.03)  # the camera's period
        assert settled() - before == sent, process.output
        status = driver.statuses[-1]
        drops = dict(zip(status.drop_reasons, status.drop_counts, strict=True))
        assert status.frames_in == status.frames_out + status.frames_dropped
        if LOST not in drops:
            pytest.skip("Fast DDS brought every large frame through")
        assert drops[LOST] <= 3
        assert "frames lost on the way from the camera" in process.output


@pytest.mark.parametrize("kind", list(PROFILES))
def test_a_reference_is_received(tmp_path: Path, kind: str) -> None:
    """Published once: latched before the node is there, volatile once it listens."""
    reference = image_message(next(textured_frames()), 5, frame_id="map")
    with driven(tmp_path, parameters={**CHEAP, "task": "match"}) as (process, driver):
        matches: list[MatchArray] = []
        name = f"{driver.target.full_name}/matches"
        driver.node.create_subscription(MatchArray, name, matches.append, 10)
        publisher = driver.node.create_publisher(Image, "reference/image", PROFILES[kind])
        if kind == "latched":
            publisher.publish(reference)
        assert driver.configure(), process.output
        assert driver.activate(), process.output
        if kind == "volatile":
            driver.wait_until(lambda: publisher.get_subscription_count() > 0, "the reader")
            driver.publish_until_answered(1)  # by now the reader knows of the publisher too
            publisher.publish(reference)
        fly_until(driver, matches, "match with the reference")
        assert matches[0].reference_header.frame_id == "map"
        if kind == "latched":  # and again after the next activation
            assert driver.deactivate()
            matches.clear()
            assert driver.activate()
            fly_until(driver, matches, "match after the second activation")


@pytest.mark.parametrize("kind", list(PROFILES))
def test_camera_info_is_received_and_refused_once(tmp_path: Path, kind: str) -> None:
    with driven(tmp_path, parameters={**CHEAP, "task": "track"}) as (process, driver):
        clouds: list[PointCloud] = []
        name = f"{driver.target.full_name}/feature_cloud"
        driver.node.create_subscription(PointCloud, name, clouds.append, 10)
        publisher = driver.node.create_publisher(CameraInfo, "camera_info", PROFILES[kind])
        good = calibration()
        if kind == "latched":
            publisher.publish(good)
        assert driver.configure(), process.output
        assert driver.activate(), process.output
        if kind == "volatile":
            driver.wait_until(lambda: publisher.get_subscription_count() > 0, "the reader")
            driver.publish_until_answered(1)
            publisher.publish(good)
        fly_until(driver, clouds, "cloud with the calibration")
        bad = calibration(float("nan"))
        for _ in range(10):
            publisher.publish(bad)
            driver.publish_until_answered(1)
        driver.wait_until(lambda: "camera_info refused" in process.output, "the refusal")
        publisher.publish(good)
        clouds.clear()
        fly_until(driver, clouds, "cloud after the good calibration came back")
        assert process.output.count("camera_info refused") == 1
        assert driver.state() == ACTIVE


def test_a_cut_and_binned_image_has_its_calibration(tmp_path: Path) -> None:
    """camera_info describes the full sensor; the image is a binned part of it."""
    with driven(tmp_path, parameters={**CHEAP, "task": "track"}) as (process, driver):
        clouds: list[PointCloud] = []
        name = f"{driver.target.full_name}/feature_cloud"
        driver.node.create_subscription(PointCloud, name, clouds.append, 10)
        publisher = driver.node.create_publisher(CameraInfo, "camera_info", LATCHED)
        info = CameraInfo(width=1400, height=1000, distortion_model="plumb_bob")
        info.k = [600.0, 0.0, 519.0, 0.0, 600.0, 439.0, 0.0, 0.0, 1.0]
        info.d = [0.0] * 14
        info.binning_x = info.binning_y = 2
        info.roi.x_offset, info.roi.y_offset = 200, 200
        info.roi.width, info.roi.height = 640, 480
        publisher.publish(info)
        assert driver.configure(), process.output
        assert driver.activate(), process.output
        fly_until(driver, clouds, "cloud with the calibration")
        cloud = clouds[0]
        assert len(cloud.points) > 0
        u, v = (np.array(channel.values) for channel in cloud.channels[1:3])
        np.testing.assert_allclose([p.x for p in cloud.points], (u - 159.5) / 300.0, atol=1e-5)
        np.testing.assert_allclose([p.y for p in cloud.points], (v - 119.5) / 300.0, atol=1e-5)

"""A real node that gets no frames, or no calibration, names the cause and the topic."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from node_process import Driver, driven, image_message, textured_frames
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud

FAKE = {"runtime": "fake", "max_keypoints": 100, "status_rate": 20.0, "stall_timeout": 0.3}
RELIABLE = {"qos_overrides./left/image.subscription.reliability": "reliable"}


BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


@pytest.fixture
def stranger() -> Iterator[Node]:
    """A node of its own participant: within one, a topic has one type."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("stranger", context=context)
    yield node
    node.destroy_node()
    context.try_shutdown()


def wait_for(driver: Driver, words: str) -> None:
    driver.wait_until(
        lambda: not driver.statuses[-1].task_ok and words in driver.statuses[-1].task_detail,
        f"a status with {words!r}",
    )
    driver.wait_until(lambda: words in driver.target.output, f"a line with {words!r}")


@pytest.mark.parametrize(
    ("kind", "parameters", "words"),
    [
        (None, {}, "nothing publishes on /left/image: does its sender run"),
        (
            CompressedImage,
            {},
            "/left/image carries sensor_msgs/msg/CompressedImage, not sensor_msgs/msg/Image: set "
            "image_transport to 'compressed'",
        ),
        (CameraInfo, {}, "/left/image carries sensor_msgs/msg/CameraInfo, not sensor_msgs/msg/Im"),
        (Image, RELIABLE, "the publisher of /left/image and this node have incompatible QoS"),
        (Image, {}, "/left/image has 1 publisher(s) with the right type and QoS, but nothing"),
    ],
)
def test_no_frame_ever(
    tmp_path: Path, stranger: Node, kind: type | None, parameters: dict[str, str], words: str
) -> None:
    with driven(tmp_path, "/left", parameters={**FAKE, **parameters}) as (process, driver):
        driver.node.destroy_publisher(driver.camera)
        if kind is not None:
            stranger.create_publisher(kind, "/left/image", BEST_EFFORT)
        assert driver.configure(), process.output
        assert driver.transition(3)  # activate
        wait_for(driver, words)
        count = len(driver.statuses)
        driver.wait_until(lambda: len(driver.statuses) > count + 5, "more statuses")
        assert process.output.count(words) == 1
        assert driver.deactivate()
        driver.wait_until(lambda: "inactive: 0 of 0 frames" in process.output, "deactivate's line")
        assert "active: frames from /left/image, camera_info from /left/camera_i" in process.output


def test_a_camera_that_ends_and_one_that_sends_what_is_not_taken(tmp_path: Path) -> None:
    with driven(tmp_path, parameters=FAKE) as (process, driver):
        assert driver.configure(), process.output
        assert driver.activate(), process.output
        driver.publish_until_answered(4)
        driver.node.destroy_publisher(driver.camera)
        wait_for(driver, "/image has no publisher any more, after 4 messages")
        driver.camera = driver.node.create_publisher(Image, "image", qos_profile_sensor_data)
        driver.wait_until(lambda: driver.camera.get_subscription_count() > 0, "the node")
        bad = image_message(next(textured_frames()))
        bad.step = 3

        def refused() -> bool:
            driver.camera.publish(bad)
            return "no frame was answered for" in driver.statuses[-1].task_detail

        driver.wait_until(refused, "frames that are all dropped")
        assert "wrong_step" in driver.statuses[-1].task_detail
        driver.publish_until_answered(1)
        driver.wait_until(lambda: driver.statuses[-1].task_ok, "frames to be answered")


def test_two_cameras_on_one_topic_are_named(tmp_path: Path, stranger: Node) -> None:
    """Their frames mix, and no count tells them apart; one of them alone is in order again."""
    with driven(tmp_path, "/left", parameters=FAKE) as (process, driver):
        heard = driver.frames_diagnostics()
        assert driver.configure(), process.output
        assert driver.activate(), process.output
        driver.publish_until_answered(2)

        def told(level: bytes, words: str) -> bool:
            driver.camera.publish(image_message(next(frames)))
            return bool(heard) and heard[-1].level == level and words in heard[-1].message

        frames = textured_frames()
        driver.wait_until(lambda: told(DiagnosticStatus.OK, "frames are answered"), "one camera")
        other = stranger.create_publisher(Image, "/left/image", BEST_EFFORT)
        words = "/left/image has 2 publishers ("
        driver.wait_until(lambda: told(DiagnosticStatus.WARN, words), "both cameras")
        driver.wait_until(lambda: told(DiagnosticStatus.WARN, "/stranger"), "its name")
        assert f"/{driver.node.get_name()}" in heard[-1].message
        assert "their frames mix" in heard[-1].message
        driver.wait_until(lambda: words in process.output, "the log's line")
        stranger.destroy_publisher(other)
        driver.wait_until(lambda: told(DiagnosticStatus.OK, "frames are answered"), "one again")
        assert process.output.count(words) == 1


def test_no_calibration(tmp_path: Path) -> None:
    real = {"runtime": "onnxruntime", "image_width": 352, "image_height": 256, "task": "track"}
    with driven(tmp_path, parameters={**FAKE, **real, "stall_timeout": 60.0}) as (process, driver):
        name = f"{driver.target.full_name}/feature_cloud"
        driver.node.create_subscription(PointCloud, name, lambda message: None, 10)
        assert driver.configure(), process.output
        assert driver.activate(), process.output

        def flown(words: str) -> bool:
            driver.publish_until_answered(2)  # two places: one image over and over has no tracks
            return words in driver.statuses[-1].task_detail

        driver.wait_until(
            lambda: flown("no camera_info has arrived: nothing publishes on /camera_info"),
            "no camera_info",
        )
        sender = driver.node.create_publisher(CameraInfo, "camera_info", qos_profile_sensor_data)
        driver.wait_until(lambda: flown("/camera_info has 1 publisher(s) with"), "nothing sent")
        uncalibrated = CameraInfo(width=320, height=240, distortion_model="plumb_bob")
        driver.wait_until(lambda: sender.get_subscription_count() > 0, "the node")
        sender.publish(uncalibrated)
        driver.wait_until(
            lambda: flown("the camera_info on /camera_info was refused: "), "the refusal"
        )
        assert process.output.count("no feature_cloud: no camera_info has arrived: nothing") == 1

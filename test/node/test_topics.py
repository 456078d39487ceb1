"""camera_info is the one beside the image, unless given."""

from __future__ import annotations

import sys

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2: rclpy is not installed here")

from gps_denied_inference.node.node import InferenceNode  # noqa: E402
from gps_denied_inference.pipeline.camera import calibration_beside  # noqa: E402


@pytest.mark.parametrize(
    ("image", "calibration"),
    [
        ("/cam/image_raw", "/cam/camera_info"),
        ("/cam/image_raw/compressed", "/cam/camera_info"),
        ("/image", "/camera_info"),
        ("image", "camera_info"),
        ("front/image_rect", "front/camera_info"),
    ],
)
def test_the_sibling_as_image_transport_has_it(image, calibration):
    assert calibration_beside(image) == calibration


@pytest.mark.parametrize(
    ("rules", "transport", "expected"),
    [
        ([], "raw", "/left/camera_info"),
        (["image:=/cam/image_raw"], "raw", "/cam/camera_info"),
        (["image:=front/image_raw"], "raw", "/left/front/camera_info"),
        (["image/compressed:=/cam/image_raw/compressed"], "compressed", "/cam/camera_info"),
        (["image:=/cam/image_raw", "camera_info:=/cal"], "raw", "/cal"),
        (["image:=/cam/image_raw", "camera_info:=/left/camera_info"], "raw", "/left/camera_info"),
    ],
)
def test_the_node_listens_to_it(monkeypatch, tmp_path, rules, transport, expected):
    arguments = ["--ros-args", "-r", "__ns:=/left"]
    for rule in rules:
        arguments += ["-r", rule]
    for name, value in (
        ("runtime", "fake"),
        ("thermal_source", "none"),
        ("image_transport", transport),
        ("engine_cache_directory", tmp_path),
    ):
        arguments += ["-p", f"{name}:={value}"]
    monkeypatch.setattr(sys, "argv", ["inference_node", *arguments])
    context = rclpy.Context()
    rclpy.init(args=arguments, context=context)
    node = InferenceNode(context=context)
    try:
        node.trigger_configure()
        node.trigger_activate()
        subscribed = dict(node.get_subscriber_names_and_types_by_node(node.get_name(), "/left"))
        assert "sensor_msgs/msg/CameraInfo" in subscribed[expected]
        infos = [t for t, types in subscribed.items() if "sensor_msgs/msg/CameraInfo" in types]
        assert infos == [expected]
    finally:
        node.destroy_node()
        context.try_shutdown()

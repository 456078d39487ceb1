"""The overlay is drawn while somebody looks at it, and at no other time."""

from __future__ import annotations

import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: rclpy is not installed here")

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from gps_denied_inference.node import outputs, qos
from gps_denied_inference.node.node import InferenceNode


def test_drawn_only_while_subscribed(tmp_path, monkeypatch):
    drawn = []
    draw = outputs.draw_overlay
    monkeypatch.setattr(
        outputs, "draw_overlay", lambda *arguments: drawn.append(1) or draw(*arguments)
    )
    context = rclpy.Context()
    rclpy.init(context=context)
    values = {
        "runtime": "fake",
        "engine_cache_directory": str(tmp_path),
        "thermal_source": "none",
        "image_width": 160,
        "image_height": 128,
        "max_keypoints": 50,
    }
    node = InferenceNode(
        context=context,
        parameter_overrides=[Parameter(name, value=value) for name, value in values.items()],
    )
    viewer = rclpy.create_node("viewer", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(viewer)
    try:
        node.trigger_configure()
        node.trigger_activate()
        pixels = np.random.default_rng(1).integers(0, 256, (128, 160), np.uint8)

        def answer():
            result = node._session.process(pixels, 1, Header())
            node._cameras.all[0].publish(pixels, result, Header(frame_id="camera"))

        answer()
        assert not drawn

        images: list[Image] = []
        subscription = viewer.create_subscription(
            Image, "/inference_node/debug_image", images.append, qos.DEBUG_IMAGE
        )
        end = time.monotonic() + 20
        while not images:
            assert time.monotonic() < end, "no overlay for its subscriber"
            answer()
            executor.spin_once(timeout_sec=0.05)
        assert drawn
        assert images[0].header.frame_id == "camera"
        assert (images[0].width, images[0].height, images[0].encoding) == (160, 128, "rgb8")

        viewer.destroy_subscription(subscription)
        publisher = node._cameras.all[0].outputs._debug_image
        while publisher.get_subscription_count() > 0:
            assert time.monotonic() < end, "the subscriber is still seen"
            time.sleep(0.01)
        before = len(drawn)
        answer()
        assert len(drawn) == before
    finally:
        executor.shutdown()
        viewer.destroy_node()
        node.destroy_node()
        context.try_shutdown()

"""The node drops a frame whose answer is spoilt, counts it, says so, and goes on."""

from __future__ import annotations

import time

import numpy as np
import pytest
from broken_outputs import SPOILT_FEATURES, StandInBrokenRuntime

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2: rclpy is not installed here")

from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.lifecycle import TransitionCallbackReturn  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402

from gps_denied_inference import networks as networks_module  # noqa: E402
from gps_denied_inference.msg import FeatureArray  # noqa: E402
from gps_denied_inference.node.node import InferenceNode  # noqa: E402


def listened_to(node) -> bool:
    return node._cameras.all[0].outputs._features.get_subscription_count() == 1


def picture(stamp):
    message = Image(height=128, width=160, encoding="mono8", step=160)
    message.header.stamp.sec = stamp
    message.data = np.random.default_rng(stamp).integers(0, 255, 160 * 128, np.uint8).tobytes()
    return message


def test_spoilt_answers_are_dropped_counted_and_shown(tmp_path, monkeypatch):
    def stand_in(name, **options):
        return StandInBrokenRuntime(**options)

    monkeypatch.setattr(networks_module, "create_runtime", stand_in)
    context = rclpy.Context()
    rclpy.init(context=context)
    values = {
        "runtime": "fake", "device": "cpu", "engine_cache_directory": str(tmp_path),
        "thermal_source": "none", "image_width": 160, "image_height": 128, "max_keypoints": 50,
    }  # fmt: skip
    node = InferenceNode(
        context=context,
        parameter_overrides=[Parameter(name, value=value) for name, value in values.items()],
    )
    other = rclpy.create_node("camera", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    executor.add_node(other)
    received = []
    spoilt = ("nan_descriptor", "descriptors_of_fewer_rows", "no_count")
    try:
        other.create_subscription(FeatureArray, "/inference_node/features", received.append, 10)
        publisher = other.create_publisher(Image, "/image", 1)
        for step in (node.trigger_configure, node.trigger_activate):
            assert step() == TransitionCallbackReturn.SUCCESS
        wait_for(lambda: publisher.get_subscription_count() == 1, executor)
        wait_for(lambda: listened_to(node), executor)
        for count, name in enumerate(spoilt, 1):
            monkeypatch.setattr(StandInBrokenRuntime, "spoil", staticmethod(SPOILT_FEATURES[name]))
            publisher.publish(picture(count))
            wait_for(
                lambda count=count: (
                    node._accounts[""].snapshot().drops.get("invalid_output") == count
                ),
                executor,
            )
        monkeypatch.setattr(StandInBrokenRuntime, "spoil", None)
        publisher.publish(picture(9))
        wait_for(lambda: received, executor)
        assert [features.header.stamp.sec for features in received] == [9]
        assert np.isfinite(received[0].descriptors).all()
        status = node.publish_status()
        assert list(status.drop_reasons) == ["invalid_output"]
        assert list(status.drop_counts) == [3]
    finally:
        executor.shutdown()
        other.destroy_node()
        node.destroy_node()
        context.try_shutdown()


def wait_for(condition, executor, timeout=10.0):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end
        executor.spin_once(timeout_sec=0.02)

"""Parameters that nothing reads are named; qos_overrides are honoured; a dump can be loaded."""

from __future__ import annotations

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2: rclpy is not installed here")

from rclpy.impl.rcutils_logger import RcutilsLogger  # noqa: E402
from rclpy.lifecycle import TransitionCallbackReturn  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy  # noqa: E402

from gps_denied_inference.node.node import InferenceNode  # noqa: E402

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


@pytest.fixture
def warnings(monkeypatch):
    lines: list[str] = []
    monkeypatch.setattr(RcutilsLogger, "warning", lambda _, line, **__: lines.append(line))
    return lines


@pytest.fixture
def make_node(tmp_path, warnings):
    context = rclpy.Context()
    rclpy.init(context=context)
    nodes = []

    def make(**overrides):
        values = {
            "runtime": "fake", "device": "cpu", "engine_cache_directory": str(tmp_path),
            "thermal_source": "none", "image_width": 160, "image_height": 128,
            "max_keypoints": 50,
        } | overrides  # fmt: skip
        parameters = [Parameter(name, value=value) for name, value in values.items()]
        nodes.append(InferenceNode(context=context, parameter_overrides=parameters))
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()
    context.try_shutdown()


def test_an_unknown_parameter_is_named_with_the_nearest_known_one(make_node, warnings):
    make_node(max_keypoint=100, colour="mono", zzzz=1, use_sim_time=False)
    assert warnings == [
        "parameter 'colour' is unknown and has no effect: is 'color' meant?",
        "parameter 'max_keypoint' is unknown and has no effect: is 'max_keypoints' meant?",
        "parameter 'zzzz' is unknown and has no effect: docs/parameters.md lists all",
    ]


def test_qos_overrides_are_honoured_and_the_others_named(make_node, warnings):
    node = make_node(
        **{
            "qos_overrides./image.subscription.reliability": "reliable",
            "qos_overrides./image.subscription.depth": 3,
            "qos_overrides./camera_info.subscription.durability": "transient_local",
            "qos_overrides./camera_info.subscription.reliability": "reliable",
            "qos_overrides./inference_node/features.publisher.reliability": "best_effort",
            "qos_overrides./picture.subscription.reliability": "reliable",
        }
    )
    assert node.trigger_configure() == SUCCESS
    assert node.trigger_activate() == SUCCESS
    (image,) = node.get_subscriptions_info_by_topic("/image")
    assert image.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    (info,) = node.get_subscriptions_info_by_topic("/camera_info")
    assert info.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
    (features,) = node.get_publishers_info_by_topic("/inference_node/features")
    assert features.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
    assert warnings == [
        "parameter 'qos_overrides./picture.subscription.reliability' is unknown and has no "
        "effect: the node has no such topic or policy with these parameters"
    ]


def test_a_qos_that_cannot_be_fails_configure_by_name(make_node):
    node = make_node(**{"qos_overrides./image.subscription.reliability": "sometimes"})
    assert node.trigger_configure() == FAILURE
    assert "'qos_overrides./image.subscription.reliability' = 'sometimes'" in node._status.detail


def test_the_nodes_own_dump_can_be_loaded_while_it_is_active(make_node):
    node = make_node(**{"qos_overrides./image.subscription.depth": 3})
    assert node.trigger_configure() == SUCCESS
    assert node.trigger_activate() == SUCCESS
    dump = [node.get_parameter(name) for name in node._parameters]
    # One by one, as the service does for 'ros2 param load'.
    results = [node.set_parameters_atomically([parameter]) for parameter in dump]
    assert all(result.successful for result in results), results
    assert node.set_parameters_atomically(dump).successful
    (refused,) = node.set_parameters([Parameter("max_keypoints", value=60)])
    assert not refused.successful

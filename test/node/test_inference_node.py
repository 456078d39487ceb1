"""The node in this process, its transitions called directly, with real engines."""

from __future__ import annotations

import time
from array import array

import numpy as np
import onnxruntime
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2: rclpy is not installed here")

from lifecycle_msgs.msg import State, Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState, GetState  # noqa: E402
from rclpy.executors import MultiThreadedExecutor  # noqa: E402
from rclpy.lifecycle import TransitionCallbackReturn  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402

from gps_denied_inference.msg import FeatureArray, InferenceStatus, MatchArray  # noqa: E402
from gps_denied_inference.node.node import InferenceNode  # noqa: E402

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


@pytest.fixture
def context():
    context = rclpy.Context()
    rclpy.init(context=context)
    yield context
    context.try_shutdown()


@pytest.fixture
def make_node(context, tmp_path):
    nodes = []

    def make(**overrides):
        values = {
            "runtime": "fake",
            "device": "cpu",
            "engine_cache_directory": str(tmp_path / "engines"),
            "thermal_source": "none",
            "image_width": 160,
            "image_height": 128,
            "max_keypoints": 50,
        } | overrides
        node = InferenceNode(
            context=context,
            parameter_overrides=[Parameter(name, value=value) for name, value in values.items()],
        )
        nodes.append(node)
        return node

    yield make
    for node in nodes:
        node.destroy_node()


def state_of(node) -> int:
    return node._state_machine.current_state[0]


def image(height=128, width=160, encoding="mono8", stamp=7) -> Image:
    message = Image(height=height, width=width, encoding=encoding, step=width)
    message.header.stamp.sec = stamp
    message.header.frame_id = "camera"
    message.data = np.random.default_rng(stamp).integers(0, 255, height * width, np.uint8).tobytes()
    return message


def listened_to(node) -> bool:
    return node._cameras.all[0].outputs._features.get_subscription_count() == 1


def wait_for(condition, what: str, executor=None, timeout=10.0):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"waited {timeout} s for {what}"
        if executor is not None:
            executor.spin_once(timeout_sec=0.02)
        else:
            time.sleep(0.005)


def test_whole_life_frees_everything(make_node):
    node = make_node()
    for _ in range(3):
        assert node.trigger_configure() == SUCCESS
        assert node._session is not None
        assert node._session.is_open
        assert node.trigger_activate() == SUCCESS
        assert node.trigger_deactivate() == SUCCESS
        assert node.trigger_cleanup() == SUCCESS
        assert node._session is node._cameras is node._thermal is None
    assert node.trigger_shutdown() == SUCCESS
    assert node.is_finalized


def test_a_destroyed_node_is_gone_at_once(make_node, context):
    """Not when the garbage collector comes: a caller would wait for answers that nobody gives."""
    node = make_node()
    watcher = rclpy.create_node("watcher", context=context)

    def services() -> list[str]:
        found = [name for name, _ in watcher.get_service_names_and_types()]
        # rclpy leaves this one of every node behind, whatever is done.
        found = [name for name in found if not name.endswith("/get_type_description")]
        return [name for name in found if name.startswith("/inference_node/")]

    wait_for(lambda: "/inference_node/change_state" in services(), "the services")
    node.destroy_node()
    wait_for(lambda: not services(), "the services to go")
    assert "inference_node" not in watcher.get_node_names()
    watcher.destroy_node()


def test_a_reference_that_no_frame_used_is_kept_across_activations(make_node, context):
    node = make_node(task="match")
    matches = []
    listener = rclpy.create_node("listener", context=context)
    listener.create_subscription(MatchArray, "/inference_node/matches", matches.append, 10)
    executor = MultiThreadedExecutor(context=context)
    executor.add_node(listener)
    node.trigger_configure()
    node.trigger_activate()
    reference = image(stamp=5)
    reference.header.frame_id = "map"
    node._worker.offer_reference(reference)
    node.trigger_deactivate()
    node.trigger_activate()
    wait_for(lambda: listener.count_publishers("/inference_node/matches"), "discovery")
    node._worker.offer(image(stamp=6))
    wait_for(lambda: matches, "the matches", executor)
    assert matches[0].reference_header.frame_id == "map"
    node.trigger_deactivate()
    node.trigger_cleanup()  # another configure may have another size, task and colour
    node.trigger_configure()
    node.trigger_activate()
    assert not node._worker.reference_waits()
    executor.shutdown()
    listener.destroy_node()


@pytest.mark.alone
def test_activate_takes_at_most_10_ms(make_node):
    node = make_node()
    node.trigger_configure()
    times = []
    for _ in range(10):
        begin = time.perf_counter()
        assert node.trigger_activate() == SUCCESS
        times.append(time.perf_counter() - begin)
        node.trigger_deactivate()
    assert sorted(times)[len(times) // 2] <= 0.010, times


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"max_keypoints": 0}, "max_keypoints"),
        ({"max_keypoints": 3841}, "max_keypoints"),
        ({"max_keypoints": "many"}, "max_keypoints"),
        ({"detection_threshold": 1.5}, "detection_threshold"),
        ({"task": "fly"}, "task"),
        ({"device": "tpu"}, "device"),
        ({"model": "no_such_network"}, "no_such_network"),
        ({"require_signed_engines": True}, "engine_public_key"),
        ({"runtime": "pytorch_fp32", "weights_file": "/nonexistent/xfeat.pt"}, "xfeat.pt"),
    ],
)
def test_configure_fails_with_one_line_and_can_be_retried(make_node, overrides, named):
    if overrides.get("runtime") == "pytorch_fp32":
        pytest.importorskip("torch", reason="torch is not installed")
    node = make_node(**overrides)
    assert node.trigger_configure() == FAILURE
    assert state_of(node) == State.PRIMARY_STATE_UNCONFIGURED
    detail = node._status.detail
    assert named in detail
    assert "\n" not in detail
    good = {
        "max_keypoints": 50,
        "detection_threshold": 0.05,
        "task": "extract",
        "device": "cpu",
        "model": "xfeat",
        "require_signed_engines": False,
        "runtime": "fake",
        "weights_file": "",
    }
    results = node.set_parameters([Parameter(name, value=good[name]) for name in overrides])
    assert all(result.successful for result in results), results
    assert node.trigger_configure() == SUCCESS


def test_parameters_are_refused_with_name_value_and_bound(make_node):
    node = make_node()
    (result,) = node.set_parameters([Parameter("max_keypoints", value=9999)])
    assert not result.successful
    for part in ("max_keypoints", "9999", "3840"):
        assert part in result.reason or "range" in result.reason, result.reason
    node.trigger_configure()
    (result,) = node.set_parameters([Parameter("max_keypoints", value=60)])
    assert not result.successful
    assert "cleanup" in result.reason
    (result,) = node.set_parameters([Parameter("frame_rate_limit", value=10.0)])
    assert result.successful, result.reason


def test_features_carry_the_frames_header_and_drops_are_counted(make_node, context):
    node = make_node()
    other = rclpy.create_node("listener", context=context)
    received: list[FeatureArray] = []
    other.create_subscription(FeatureArray, "/inference_node/features", received.append, 10)
    publisher = other.create_publisher(Image, "/image", 1)
    executor = MultiThreadedExecutor(context=context)
    executor.add_node(node)
    executor.add_node(other)
    assert node.trigger_configure() == SUCCESS
    assert node.trigger_activate() == SUCCESS
    wait_for(lambda: publisher.get_subscription_count() == 1, "the node's subscription", executor)
    wait_for(
        lambda: listened_to(node),
        "ours",
        executor,
    )
    publisher.publish(image(stamp=11))
    wait_for(lambda: received, "features", executor)
    features = received[0]
    assert (features.header.stamp.sec, features.header.frame_id) == (11, "camera")
    assert (features.image_width, features.image_height) == (160, 128)
    assert len(features.keypoints) == 2 * features.count
    assert len(features.descriptors) == features.count * features.descriptor_dim
    bad = image()
    bad.step = 3
    publisher.publish(bad)
    wait_for(lambda: node._accounts[""].snapshot().drops.get("wrong_step") == 1, "drop", executor)
    publisher.publish(image(stamp=12))
    wait_for(lambda: len(received) == 2, "features after a bad frame", executor)
    account = node._accounts[""].snapshot()
    assert account.frames_in == account.frames_out + account.frames_dropped == 3
    executor.shutdown()
    other.destroy_node()


def test_invalid_transition_by_service_is_answered_and_survived(make_node, context):
    node = make_node()
    other = rclpy.create_node("manager", context=context)
    change = other.create_client(ChangeState, "/inference_node/change_state")
    get = other.create_client(GetState, "/inference_node/get_state")
    executor = MultiThreadedExecutor(context=context)
    executor.add_node(node)
    executor.add_node(other)
    wait_for(lambda: change.service_is_ready() and get.service_is_ready(), "services", executor)

    def call(client, request):
        future = client.call_async(request)
        wait_for(future.done, "an answer", executor)
        return future.result()

    for transition in (Transition.TRANSITION_ACTIVATE, 250):
        request = ChangeState.Request(transition=Transition(id=transition))
        assert call(change, request).success is False
    assert call(get, GetState.Request()).current_state.label == "unconfigured"
    request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE))
    assert call(change, request).success is True
    executor.shutdown()
    other.destroy_node()


def test_status_says_what_really_runs(make_node):
    node = make_node(runtime="onnxruntime", precision="fp32")
    assert node.trigger_configure() == SUCCESS, node._status.detail
    status = node.publish_status()
    assert isinstance(status, InferenceStatus)
    assert status.runtime == "onnxruntime"
    assert status.runtime_version == onnxruntime.__version__
    assert status.provider == "CPUExecutionProvider"
    assert (status.engine_width, status.engine_height) == (160, 128)
    assert len(status.model_sha256) == 64


def test_quality_of_images_and_stamps_is_published(make_node, context):
    node = make_node()
    other = rclpy.create_node("listener", context=context)
    received: list[FeatureArray] = []
    other.create_subscription(FeatureArray, "/inference_node/features", received.append, 10)
    publisher = other.create_publisher(Image, "/image", 1)
    executor = MultiThreadedExecutor(context=context)
    executor.add_node(node)
    executor.add_node(other)
    assert node.trigger_configure() == SUCCESS
    assert node.trigger_activate() == SUCCESS
    wait_for(lambda: publisher.get_subscription_count() == 1, "the node's subscription", executor)
    wait_for(
        lambda: listened_to(node),
        "ours",
        executor,
    )
    stamps = [*range(1, 13), 12, 16]  # one repeated, three missing
    for sent, stamp in enumerate(stamps, 1):
        frame = image(stamp=stamp)
        frame.data = array("B", [3 if stamp == 16 else 200]) * len(frame.data)
        publisher.publish(frame)
        wait_for(lambda sent=sent: len(received) == sent, f"answer {sent}", executor)
    assert received[0].brightness == pytest.approx(200 / 255, abs=1e-3)
    assert received[-1].brightness == pytest.approx(3 / 255, abs=1e-3)
    assert (received[0].dark_share, received[-1].dark_share) == (0.0, 1.0)
    status = node.publish_status()
    (camera,) = status.cameras
    assert (camera.name, camera.frames_in, camera.frames_out) == ("", 14, 14)
    assert (camera.stamps_repeated, camera.stamp_gaps, camera.frames_missing) == (1, 1, 3)
    assert camera.stamp_period == pytest.approx(1.0)
    assert camera.stamp_jitter == pytest.approx(0.0, abs=1e-6)
    assert camera.brightness == pytest.approx(200 / 255, abs=1e-3)
    executor.shutdown()
    other.destroy_node()

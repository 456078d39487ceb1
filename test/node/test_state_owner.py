"""The lifecycle's state is the state: whatever overlaps, the last status says what holds."""

from __future__ import annotations

import threading

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2: rclpy is not installed here")

from rclpy.parameter import Parameter  # noqa: E402

from gps_denied_inference.msg import InferenceStatus  # noqa: E402
from gps_denied_inference.node.managed import ManagedNode  # noqa: E402
from gps_denied_inference.node.node import InferenceNode  # noqa: E402
from gps_denied_inference.thermal.policy import ThermalAction  # noqa: E402

LIMIT = 20.0  # s
HOT = ThermalAction(frame_rate_limit=2.0, keypoint_limit=0, may_activate=True, description="hot")


@pytest.fixture
def node(tmp_path):
    context = rclpy.Context()
    rclpy.init(context=context)
    values = {
        "runtime": "fake",
        "engine_cache_directory": str(tmp_path / "engines"),
        "thermal_source": "none",
    }
    overrides = [Parameter(name, value=value) for name, value in values.items()]
    node = InferenceNode(context=context, parameter_overrides=overrides)
    yield node
    node.destroy_node()
    context.try_shutdown()


@pytest.fixture
def sent(node, monkeypatch):
    """Every status, in the order of publication."""
    statuses = []
    publish = node._status._publisher.publish

    def record(message):
        publish(message)
        statuses.append(message)

    monkeypatch.setattr(node._status._publisher, "publish", record)
    return statuses


def held(monkeypatch, owner, name, thread_name):
    """Stop one thread on its way into a method; return when it is there, and what lets it go."""
    there, go = threading.Event(), threading.Event()
    original = getattr(owner, name)

    def stop(*arguments, **named):
        if threading.current_thread().name == thread_name:
            there.set()
            assert go.wait(LIMIT)
        return original(*arguments, **named)

    monkeypatch.setattr(owner, name, stop)
    return there, go


@pytest.mark.parametrize("where", ["before it says", "while it publishes"])
def test_a_thermal_tick_that_overlaps_deactivate(node, sent, monkeypatch, where):
    node.trigger_configure()
    node.trigger_activate()
    owner, name = {
        "before it says": (node._status, "change"),
        "while it publishes": (node._status._publisher, "publish"),
    }[where]
    there, go = held(monkeypatch, owner, name, "thermal")
    thermal = threading.Thread(target=node._obey, args=(HOT,), name="thermal")
    thermal.start()
    assert there.wait(LIMIT)
    deactivate = threading.Thread(target=node.trigger_deactivate)
    deactivate.start()
    deactivate.join(0.5)  # it may have to wait for the other to be done
    go.set()
    for thread in (thermal, deactivate):
        thread.join(LIMIT)
        assert not thread.is_alive()
    assert sent[-1].state == InferenceStatus.STATE_INACTIVE
    assert sent[-1].detail == ""
    node._publish_status()
    assert sent[-1].state == InferenceStatus.STATE_INACTIVE


def test_the_policys_words_are_in_the_status_while_active(node, sent):
    node.trigger_configure()
    node._obey(HOT)
    assert sent[-1].detail == ""
    node.trigger_activate()
    node._obey(HOT)
    assert (sent[-1].state, sent[-1].detail) == (InferenceStatus.STATE_ACTIVE, "hot")


def test_every_transition_ends_with_its_state(node, sent):
    expected = {
        "configure": InferenceStatus.STATE_INACTIVE,
        "activate": InferenceStatus.STATE_ACTIVE,
        "deactivate": InferenceStatus.STATE_INACTIVE,
        "cleanup": InferenceStatus.STATE_UNCONFIGURED,
        "shutdown": InferenceStatus.STATE_FINALIZED,
    }
    for name, state in expected.items():
        getattr(node, f"trigger_{name}")()
        assert sent[-1].state == state, name
    assert node.is_finalized


def test_guarded_transitions_are_written_once():
    assert issubclass(InferenceNode, ManagedNode)
    assert InferenceNode._change_state_guarded is ManagedNode._change_state_guarded
    assert InferenceNode.end_transition is ManagedNode.end_transition

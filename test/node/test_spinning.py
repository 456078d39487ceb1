"""The executor outlives entities that are destroyed while it prepares to wait."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ.setdefault("ROS_DOMAIN_ID", "88")

import rclpy
from rclpy.exceptions import InvalidHandle
from rclpy.executors import MultiThreadedExecutor
from rclpy.node import Node
from rclpy.publisher import Publisher
from std_msgs.msg import String

from gps_denied_inference.ros.spinning import ROW_LIMIT, Turns


@pytest.fixture
def node() -> Iterator[Node]:
    context = rclpy.Context()
    rclpy.init(context=context, args=[])
    node = rclpy.create_node("spinning", context=context)
    yield node
    node.destroy_node()
    context.try_shutdown()


def destroyed_while_listed(node: Node) -> Publisher:
    """Leave the events of a destroyed publisher on the node's list: what the race amounts to."""
    publisher = node.create_publisher(String, "gone", 1)
    events = list(publisher.event_handlers)
    assert events
    for event in events:
        event.destroy()
    return publisher


def test_rclpy_raises_for_a_destroyed_entity(node: Node) -> None:
    executor = MultiThreadedExecutor(num_threads=2, context=node.context)
    executor.add_node(node)
    destroyed_while_listed(node)
    with pytest.raises(InvalidHandle):
        executor.spin_once(timeout_sec=0.05)
    executor.shutdown()


def test_the_next_turn_does_without_it(node: Node) -> None:
    executor = MultiThreadedExecutor(num_threads=2, context=node.context)
    executor.add_node(node)
    called: list[bool] = []
    node.create_timer(0.01, lambda: called.append(True))
    turns = Turns(executor)
    publisher = destroyed_while_listed(node)
    turns.take(0.05)
    assert not called
    node.destroy_publisher(publisher)
    for _ in range(200):
        turns.take(0.05)
        if called:
            break
    assert called
    executor.shutdown()


def test_what_never_ends_is_raised(node: Node) -> None:
    executor = MultiThreadedExecutor(num_threads=2, context=node.context)
    executor.add_node(node)
    destroyed_while_listed(node)
    turns = Turns(executor)
    for _ in range(ROW_LIMIT - 1):
        turns.take(0.0)
    with pytest.raises(InvalidHandle):
        turns.take(0.0)
    executor.shutdown()

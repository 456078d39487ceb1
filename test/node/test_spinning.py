"""The executor outlives entities that are destroyed while it prepares to wait, and ends cleanly."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ.setdefault("ROS_DOMAIN_ID", "88")

import rclpy
from canary import canary
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.exceptions import InvalidHandle
from rclpy.executors import Executor, MultiThreadedExecutor
from rclpy.node import Node
from rclpy.publisher import Publisher
from std_msgs.msg import String

from gps_denied_inference.node.spinning import ROW_LIMIT, NodeExecutor

UNRETRIEVED = "exception was never retrieved"


@pytest.fixture
def node() -> Iterator[Node]:
    context = rclpy.Context()
    rclpy.init(context=context, args=[])
    node = rclpy.create_node("spinning", context=context)
    yield node
    node.destroy_node()
    context.try_shutdown()


@pytest.fixture
def executor(node: Node) -> Iterator[NodeExecutor]:
    executor = NodeExecutor(2, context=node.context)
    executor.add_node(node)
    yield executor
    executor.shutdown(5.0)


def destroyed_while_listed(node: Node) -> Publisher:
    """Leave the events of a destroyed publisher on the node's list: what the race amounts to."""
    publisher = node.create_publisher(String, "gone", 1)
    events = list(publisher.event_handlers)
    assert events
    for event in events:
        event.destroy()
    return publisher


def test_canary_rclpy_raises_for_a_destroyed_entity(node: Node) -> None:
    executor = MultiThreadedExecutor(num_threads=2, context=node.context)
    executor.add_node(node)
    destroyed_while_listed(node)
    try:
        executor.spin_once(timeout_sec=0.05)
    except InvalidHandle:
        mended = False
    else:
        mended = True
    executor.shutdown()
    canary("a destroyed entity costs a turn", mended)


def test_the_next_turn_does_without_it(node: Node, executor: NodeExecutor) -> None:
    called: list[bool] = []
    node.create_timer(0.01, lambda: called.append(True))
    publisher = destroyed_while_listed(node)
    executor.spin_once(0.05)
    assert not called
    node.destroy_publisher(publisher)
    for _ in range(200):
        executor.spin_once(0.05)
        if called:
            break
    assert called


def test_what_never_ends_is_raised(node: Node, executor: NodeExecutor) -> None:
    destroyed_while_listed(node)
    for _ in range(ROW_LIMIT - 1):
        executor.spin_once(0.0)
    with pytest.raises(InvalidHandle):
        executor.spin_once(0.0)


def test_what_a_callback_raises_is_raised(node: Node, executor: NodeExecutor) -> None:
    def broken() -> None:
        timer.cancel()
        raise ValueError("a defect")

    def spin() -> None:
        for _ in range(200):
            executor.spin_once(0.05)

    timer = node.create_timer(0.001, broken)
    with pytest.raises(ValueError, match="a defect"):
        spin()


def submissions(node: Node, executor: Executor, pool: Any, callbacks: int) -> int:
    """Spin until a timer was called so often; count what was submitted to the pool meanwhile.

    Another thread computes all the time, as an inference thread does between two images: a thread
    that is to begin gets the interpreter's lock 5 ms later.
    """
    called: list[int] = []
    counted: list[int] = []
    done = threading.Event()
    submit = pool.submit

    def count(task: Any, *args: Any) -> Any:
        counted.append(1)
        return submit(task, *args)

    def compute() -> None:
        while not done.is_set():
            sum(range(1000))

    pool.submit = count
    executor.add_node(node)
    node.create_timer(0.02, lambda: called.append(1))
    other = threading.Thread(target=compute)
    other.start()
    try:
        end = time.monotonic() + 30.0
        while len(called) < callbacks:
            assert time.monotonic() < end
            executor.spin_once(timeout_sec=1.0)
        return len(counted)
    finally:
        done.set()
        other.join()


def test_canary_rclpy_submits_a_callback_again_and_again(node: Node) -> None:
    executor = MultiThreadedExecutor(num_threads=2, context=node.context)
    submitted = submissions(node, executor, executor._executor, 25)
    executor.shutdown()
    executor._executor.shutdown(wait=True)
    canary("callbacks are handed over once", mended=submitted < 30)


def test_a_callback_is_handed_over_once(node: Node, executor: NodeExecutor) -> None:
    # One more may have been handed over that has not been called yet.
    assert submissions(node, executor, executor._pool, 25) in (25, 26)


def test_callbacks_wait_while_all_threads_are_taken(node: Node, executor: NodeExecutor) -> None:
    """They are handed over once, cost no processor time, and run when a thread is free."""
    release = threading.Event()
    begun: list[int] = []
    group = ReentrantCallbackGroup()

    def block() -> None:
        begun.append(1)
        release.wait(10)

    for _ in range(3):
        node.create_timer(0.001, block, callback_group=group)
    while len(begun) < 2:
        executor.spin_once(1.0)
    before = time.process_time()
    start = time.monotonic()
    for _ in range(5):
        executor.spin_once(0.1)
    assert time.monotonic() - start >= 0.4
    assert time.process_time() - before < 0.2
    assert len(begun) == 2
    release.set()
    end = time.monotonic() + 10
    while len(begun) < 3:
        assert time.monotonic() < end
        executor.spin_once(0.1)


def end_with_work_in_the_queue(node: Node, executor: Executor) -> list[str]:
    """Shut down while each of two threads is in a callback and a third callback waits for one."""
    release = threading.Event()
    finished: list[str] = []
    group = ReentrantCallbackGroup()

    def blocked() -> None:
        release.wait(10)
        finished.append("callback")

    for _ in range(3):
        node.create_timer(0.001, blocked, callback_group=group)
    executor.add_node(node)
    for _ in range(3):
        executor.spin_once(timeout_sec=1.0)
    threading.Timer(0.2, release.set).start()
    executor.shutdown(timeout_sec=5.0)
    end = time.monotonic() + 5.0
    while len(finished) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    return finished


def test_canary_rclpy_does_not_wait_for_callbacks_at_the_end(node: Node, capfd) -> None:
    executor = MultiThreadedExecutor(num_threads=2, context=node.context)
    end_with_work_in_the_queue(node, executor)
    executor._executor.shutdown(wait=True)
    del executor
    gc.collect()
    canary("shutdown waits for callbacks", UNRETRIEVED not in capfd.readouterr().err)


def test_the_end_waits_for_callbacks(node: Node, capfd) -> None:
    executor = NodeExecutor(2, context=node.context)
    assert len(end_with_work_in_the_queue(node, executor)) == 3
    del executor
    gc.collect()
    assert UNRETRIEVED not in capfd.readouterr().err


def test_the_end_does_not_wait_for_ever(node: Node) -> None:
    release = threading.Event()
    entered = threading.Event()

    def blocked() -> None:
        entered.set()
        release.wait(10)

    node.create_timer(0.001, blocked)
    executor = NodeExecutor(2, context=node.context)
    executor.add_node(node)
    executor.spin_once(1.0)
    assert entered.wait(5)
    assert not executor.shutdown(0.05)
    release.set()

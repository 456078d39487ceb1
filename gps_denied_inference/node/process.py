"""The node as a process: started, spun, and ended by request or signal."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence

import rclpy
import rclpy.logging
from rclpy.executors import ExternalShutdownException
from rclpy.signals import SignalHandlerOptions

from gps_denied_inference.errors import GpsDeniedInferenceError
from gps_denied_inference.node.managed import ManagedNode
from gps_denied_inference.node.node import InferenceNode
from gps_denied_inference.node.rclpy_compat import RCLError
from gps_denied_inference.node.spinning import NodeExecutor
from gps_denied_inference.node.transitions import described

EXECUTOR_THREADS = 4
"""Frames, state, thermal and a transition: none of them waits for another."""

POLL_PERIOD = 0.1
"""s between looks at the stop flag; Python runs signal handlers only between waits."""

INTERRUPT_GRACE = 1.2
"""s that a running configure gets to reach its next step after SIGINT or SIGTERM."""


def ignore_signals() -> None:
    """Let SIGINT and SIGTERM do nothing from now on: the process is ending already.

    Ignored, not handled: the interpreter takes Python's handlers away at its own end, after which
    either signal would kill.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def main(
    args: Sequence[str] | None = None, node_class: Callable[[], ManagedNode] = InferenceNode
) -> int:
    """Run the node until it is shut down or signalled. Returns the process's exit code."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    # rclpy's own handlers would end the context before the node could give anything back.
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        node = node_class()
    except (GpsDeniedInferenceError, RCLError) as error:
        # A quality of service that cannot be; security that was asked for and cannot be had.
        rclpy.logging.get_logger("inference_node").fatal(f"cannot start: {described(error)}")
        rclpy.try_shutdown()
        return 1
    executor = NodeExecutor(EXECUTOR_THREADS)
    executor.add_node(node)
    try:
        while rclpy.ok() and not stop.is_set() and not node.is_finalized:
            executor.spin_once(POLL_PERIOD)
            if node.exit_code:
                break
        if node.is_finalized:  # let the answer to the shutdown request out
            executor.spin_once(POLL_PERIOD)
    except ExternalShutdownException:
        pass
    ignore_signals()
    node.interrupted.set()
    if not node.end_transition(INTERRUPT_GRACE):
        # A vendor's builder is deep in native code and cannot be stopped. Files are written
        # atomically, so ending here leaves nothing half-done.
        node.get_logger().warning("ending while an engine is still being built, or hangs")
        os._exit(node.exit_code)
    executor.shutdown(timeout_sec=0.5)
    node.destroy_node()
    rclpy.try_shutdown()
    ignore_signals()  # rclpy may have put other handlers back
    if node.has_hung:
        # The interpreter's end would meet native code that still runs, and abort.
        os._exit(node.exit_code)
    return node.exit_code

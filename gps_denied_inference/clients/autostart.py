"""Bring a freshly started lifecycle node to ACTIVE, and say in one line why where it cannot be.

``launch/inference.launch.py`` starts this beside each start of the node. It is a process of its own
because it must see only nodes that live: a launch process that has watched its node being killed
still knows the dead node's services for as long as DDS keeps its lease, and a request sent to those
is never answered. A participant that joins after the death never learns of them.

    ros2 run gps_denied_inference autostart /left/inference_node

Exit code: 0 the node is active, 1 it refused, 2 usage, 3 it did not appear or went away.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

import rclpy
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from gps_denied_inference.msg import InferenceStatus

ACTIVE, REFUSED, ABSENT = 0, 1, 3

_LATCHED = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
_STEPS = {
    State.PRIMARY_STATE_UNCONFIGURED: (Transition.TRANSITION_CONFIGURE, "configured"),
    State.PRIMARY_STATE_INACTIVE: (Transition.TRANSITION_ACTIVATE, "activated"),
}


class Autostart:
    """Drives one lifecycle node through configure and activate.

    Args:
        target: the node's full name, e.g. ``"/left/inference_node"``.
        appear_timeout: s until its services have to be there.
        transition_timeout: s that one transition may take; building an engine takes minutes.
    """

    def __init__(self, target: str, appear_timeout: float, transition_timeout: float) -> None:
        self.target = target
        self.appear_timeout = appear_timeout
        self.transition_timeout = transition_timeout
        namespace, _, name = target.rpartition("/")
        self._node = rclpy.create_node(f"autostart_{name}", namespace=namespace or "/")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._get_state = self._node.create_client(GetState, f"{target}/get_state")
        self._change_state = self._node.create_client(ChangeState, f"{target}/change_state")
        self._detail = ""
        self._node.create_subscription(
            InferenceStatus, f"{target}/status", self._on_status, _LATCHED
        )

    def _on_status(self, message: InferenceStatus) -> None:
        if message.detail != self._detail:
            self._detail = message.detail
            if message.state == InferenceStatus.STATE_CONFIGURING and message.detail:
                self._node.get_logger().info(f"{self.target}: {message.detail}")

    def run(self) -> int:
        """Return an exit code of this module; every failure is logged as one ERROR line."""
        log = self._node.get_logger()
        for client in (self._get_state, self._change_state):
            if not self._wait(client.service_is_ready, self.appear_timeout):
                log.error(
                    f"autostart of {self.target} failed: no service {client.srv_name} within "
                    f"{self.appear_timeout:g} s; is the node running?"
                )
                return ABSENT
        for _ in _STEPS:
            state = self._call(self._get_state, GetState.Request(), self.appear_timeout)
            if state is None:
                log.error(f"autostart of {self.target} failed: it does not answer")
                return ABSENT
            if state.current_state.id not in _STEPS:
                break
            transition, done = _STEPS[state.current_state.id]
            request = ChangeState.Request()
            request.transition.id = transition
            answer = self._call(self._change_state, request, self.transition_timeout)
            if answer is None:
                log.error(
                    f"autostart of {self.target} failed: it could not be {done}, no answer within "
                    f"{self.transition_timeout:g} s"
                )
                return ABSENT
            if not answer.success:
                self._wait(lambda: False, 0.3)  # the status that says why may still be on its way
                reason = self._detail or "see the node's own log"
                log.error(f"autostart of {self.target} failed: it could not be {done}: {reason}")
                return REFUSED
        state = self._call(self._get_state, GetState.Request(), self.appear_timeout)
        if state is None or state.current_state.id != State.PRIMARY_STATE_ACTIVE:
            label = state.current_state.label if state is not None else "no answer"
            log.error(f"autostart of {self.target} failed: its state is {label}, not active")
            return REFUSED
        log.info(f"{self.target} is active")
        return ACTIVE

    def _call(self, client: Any, request: Any, timeout: float) -> Any:
        """Return the answer, or None when none came in time or the service went away."""
        future = client.call_async(request)
        gone = [0.0]

        def settled() -> bool:
            # A service that is away for a moment may be a matter of discovery; two seconds are not.
            if client.service_is_ready():
                gone[0] = 0.0
            elif not gone[0]:
                gone[0] = time.monotonic()
            return future.done() or bool(gone[0] and time.monotonic() - gone[0] > 2.0)

        self._wait(settled, timeout)
        return future.result() if future.done() else None

    def _wait(self, fact: Any, timeout: float) -> bool:
        end = time.monotonic() + timeout
        while not fact():
            if time.monotonic() > end:
                return False
            self._executor.spin_once(timeout_sec=0.05)
        return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; ROS arguments (``--ros-args ...``) are taken too."""
    parser = argparse.ArgumentParser(prog="autostart", description=__doc__.split("\n", 1)[0])
    parser.add_argument("node", help="full name, e.g. /inference_node")
    parser.add_argument("--appear-timeout", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--transition-timeout", type=float, default=1800.0, metavar="SECONDS")
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(rclpy.utilities.remove_ros_args(["autostart", *given])[1:])
    if not options.node.startswith("/"):
        parser.error(f"{options.node}: the full name is needed, e.g. /inference_node")
    try:
        rclpy.init(args=given)
        return Autostart(options.node, options.appear_timeout, options.transition_timeout).run()
    except (KeyboardInterrupt, ExternalShutdownException):
        return ABSENT
    finally:
        rclpy.try_shutdown()


if __name__ == "__main__":
    sys.exit(main())

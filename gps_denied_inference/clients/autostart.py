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
from collections.abc import Sequence

import rclpy
from lifecycle_msgs.msg import State, Transition
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

from gps_denied_inference.clients.lifecycle_client import LifecycleClient
from gps_denied_inference.msg import InferenceStatus

ACTIVE, REFUSED, ABSENT = 0, 1, 3

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
        self._client = LifecycleClient(self._node, self._executor, target, self._on_status)
        self._said = ""

    def _on_status(self, message: InferenceStatus) -> None:
        if message.detail != self._said:
            self._said = message.detail
            if message.state == InferenceStatus.STATE_CONFIGURING and message.detail:
                self._node.get_logger().info(f"{self.target}: {message.detail}")

    def run(self) -> int:
        """Return an exit code of this module; every failure is logged as one ERROR line."""
        log = self._node.get_logger()
        if missing := self._client.missing_service(self.appear_timeout):
            log.error(
                f"autostart of {self.target} failed: no service {missing} within "
                f"{self.appear_timeout:g} s; is the node running?"
            )
            return ABSENT
        for _ in _STEPS:
            state = self._client.state(self.appear_timeout)
            if state is None:
                log.error(f"autostart of {self.target} failed: it does not answer")
                return ABSENT
            if state.id not in _STEPS:
                break
            transition, done = _STEPS[state.id]
            succeeded = self._client.request(transition, self.transition_timeout)
            if succeeded is None:
                log.error(
                    f"autostart of {self.target} failed: it could not be {done}, no answer within "
                    f"{self.transition_timeout:g} s"
                )
                return ABSENT
            if not succeeded:
                # The status that says why may still be on its way.
                self._client.wait(lambda: False, 0.3)
                reason = self._client.detail or "see the node's own log"
                log.error(f"autostart of {self.target} failed: it could not be {done}: {reason}")
                return REFUSED
        state = self._client.state(self.appear_timeout)
        if state is None or state.id != State.PRIMARY_STATE_ACTIVE:
            label = state.label if state is not None else "no answer"
            log.error(f"autostart of {self.target} failed: its state is {label}, not active")
            return REFUSED
        log.info(f"{self.target} is active")
        return ACTIVE


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

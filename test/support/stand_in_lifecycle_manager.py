"""Stands for nav2's lifecycle manager: the same parameters, the same requests, no bond.

It is found as ``nav2_lifecycle_manager`` through a prefix that the test makes.
"""

import contextlib
import time

import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.executors import ExternalShutdownException


def main() -> None:
    rclpy.init()
    node = rclpy.create_node("lifecycle_manager")
    node.declare_parameter("node_names", [""])
    for name, default in (("autostart", False), ("bond_timeout", 4.0), ("service_timeout", 5.0)):
        node.declare_parameter(name, default)
    assert node.get_parameter("autostart").value, "nothing to do"
    assert node.get_parameter("bond_timeout").value == 0.0, "the node keeps no bond"
    limit = node.get_parameter("service_timeout").value
    for name in node.get_parameter("node_names").value:
        # A relative name, as nav2 has it: in the manager's own namespace.
        client = node.create_client(ChangeState, f"{name}/change_state")
        assert client.wait_for_service(30.0), client.srv_name
        for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
            request = ChangeState.Request(transition=Transition(id=transition))
            future = client.call_async(request)
            begun = time.monotonic()
            rclpy.spin_until_future_complete(node, future, timeout_sec=limit)
            assert future.done(), f"no answer in {time.monotonic() - begun:.1f} s"
            assert future.result().success, f"transition {transition} failed"
    node.get_logger().info("Managed nodes are active")
    rclpy.spin(node)


with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
    main()

"""Every reach into what rclpy keeps to itself, with what upstream says about it.

The node's other modules use rclpy's public interface only. ``REACHES`` names why each of these is
needed; a test tries each one and warns, without failing, where rclpy does without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNodeMixin
from rclpy.node import Node
from rclpy.parameter import Parameter

RCLError = rclpy_implementation.RCLError
"""What rcl reports; rclpy names it nowhere in public."""


@dataclass(frozen=True)
class Reach:
    """One thing that rclpy does not offer, or does otherwise than a node in flight needs.

    Attributes:
        why: what would happen without it.
        upstream: issues and pull requests of ros2/rclpy; empty where none is known.
        serves: the ROS releases it is needed on.
    """

    why: str
    upstream: tuple[str, ...]
    serves: tuple[str, ...]


_PULL = "https://github.com/ros2/rclpy/pull/"
_ISSUE = "https://github.com/ros2/rclpy/issues/"
RELEASES = ("jazzy", "kilted", "lyrical")

REACHES: dict[str, Reach] = {
    "callbacks are handed over once": Reach(
        "rclpy's MultiThreadedExecutor submits a callback again and again until a thread begins it,"
        " and starves that thread",
        (f"{_ISSUE}1452", f"{_PULL}1547"),
        RELEASES,
    ),
    "a destroyed entity costs a turn": Reach(
        "an entity that a transition destroys while the executor prepares to wait raises"
        " InvalidHandle out of spin",
        (f"{_ISSUE}1284", f"{_ISSUE}1206", f"{_PULL}1150", f"{_PULL}1590"),
        RELEASES,
    ),
    "shutdown waits for callbacks": Reach(
        "Executor.shutdown destroys the guard condition that running callbacks trigger as they end",
        (f"{_ISSUE}968", f"{_PULL}1309", f"{_PULL}1666"),
        RELEASES,
    ),
    "change_state is guarded": Reach(
        "the service's callback cannot be replaced in public; unguarded, transitions overlap, and"
        " some versions raise where a transition is not possible",
        (f"{_ISSUE}1209", f"{_PULL}1319"),
        RELEASES,
    ),
    "the state is asked for": Reach(
        "a node has no public way to ask for its own lifecycle state",
        (),
        RELEASES,
    ),
    "the state machine is destroyed": Reach(
        "destroy_node leaves the lifecycle's services to the garbage collector, and other nodes go"
        " on seeing them",
        (),
        RELEASES,
    ),
    "overrides are read before declaring": Reach(
        "rclpy declares every QoS override it is told of, read-only and for good; what the user"
        " overrides cannot be asked for in public",
        (f"{_PULL}363",),
        RELEASES,
    ),
}
"""What is reached for, and why. The executor's three are met in :mod:`spinning`."""


def guard_change_state(
    node: LifecycleNodeMixin, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> None:
    """Have ``wrap(callback)`` answer ``change_state`` in the place of rclpy's callback."""
    service = node._service_change_state
    service.callback = wrap(service.callback)


def lifecycle_state(node: LifecycleNodeMixin) -> tuple[int, str]:
    """Return id and label of the node's lifecycle state, transition states included."""
    state: tuple[int, str] = node._state_machine.current_state
    return state


def destroy_state_machine(node: LifecycleNodeMixin) -> None:
    """Destroy the lifecycle services and the transition topic as soon as nothing uses them."""
    node._state_machine.destroy_when_not_in_use()


def parameter_overrides(node: Node) -> Mapping[str, Parameter]:
    """Return what command line and parameter file say, by name, declared or not."""
    found: dict[str, Parameter] = node._parameter_overrides
    return MappingProxyType(found)

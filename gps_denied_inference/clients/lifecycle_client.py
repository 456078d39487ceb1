"""The other side of a lifecycle node: its state, its transitions, and what its status says."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.executors import Executor
from rclpy.node import Node
from rclpy.task import Future

from gps_denied_inference.msg import InferenceStatus
from gps_denied_inference.node import qos

T = TypeVar("T")

_GONE_AFTER = 2.0
"""s without a service; away for a moment, it may be a matter of discovery."""


class LifecycleClient:
    """Asks one node for its state and for transitions, and keeps its newest status.

    Args:
        node: this process's node.
        executor: spins ``node``; it is spun here while waiting.
        target: the lifecycle node's full name, e.g. ``"/left/inference_node"``.
        on_status: called with every status that arrives.
        check: called while waiting; what it raises ends the wait.

    Attributes:
        status: the newest InferenceStatus; None until one came.
    """

    def __init__(
        self,
        node: Node,
        executor: Executor,
        target: str,
        on_status: Callable[[InferenceStatus], None] = lambda status: None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._executor = executor
        self._on_status = on_status
        self._check = check
        self.status: InferenceStatus | None = None
        self._change_state = node.create_client(ChangeState, f"{target}/change_state")
        self._get_state = node.create_client(GetState, f"{target}/get_state")
        node.create_subscription(InferenceStatus, f"{target}/status", self._take_status, qos.STATE)

    def _take_status(self, message: InferenceStatus) -> None:
        self.status = message
        self._on_status(message)

    @property
    def detail(self) -> str:
        """What the newest status says of progress or failure; "" where nothing."""
        return str(self.status.detail) if self.status is not None else ""

    def wait(self, fact: Callable[[], T], timeout: float) -> T | None:
        """Spin until ``fact()`` is true and return its value; None after ``timeout`` s."""
        deadline = time.monotonic() + timeout
        while not (value := fact()):
            self._check()
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return None
            self._executor.spin_once(timeout_sec=min(remaining, 0.05))
        return value

    def spin(self, timeout: float) -> None:
        """Take what arrives within ``timeout`` s, one message at most."""
        self._executor.spin_once(timeout_sec=timeout)

    def missing_service(self, timeout: float) -> str:
        """Wait for the node's services; return the name of one that did not come, else ""."""
        for client in (self._get_state, self._change_state):
            if not self.wait(client.service_is_ready, timeout):
                return str(client.srv_name)
        return ""

    def state(self, timeout: float) -> State | None:
        """Return the node's state; None when it does not answer in time or goes away."""
        answer = self._call(self._get_state, GetState.Request(), timeout)
        return answer.current_state if answer is not None else None

    def request(self, transition: int, timeout: float) -> bool | None:
        """Request a transition (``lifecycle_msgs/Transition``).

        Returns:
            Whether it succeeded; None when no answer came in time or the node went away.
        """
        answer = self._call(self._change_state, _asking(transition), timeout)
        return bool(answer.success) if answer is not None else None

    def send(self, transition: int) -> Future:
        """Request a transition without waiting: a node that ends may not answer."""
        return self._change_state.call_async(_asking(transition))

    def _call(self, client: Any, request: Any, timeout: float) -> Any:
        future = client.call_async(request)
        gone_since = [float("inf")]

        def settled() -> bool:
            if client.service_is_ready():
                gone_since[0] = float("inf")
            else:
                gone_since[0] = min(gone_since[0], time.monotonic())
            return future.done() or time.monotonic() - gone_since[0] > _GONE_AFTER

        self.wait(settled, timeout)
        return future.result() if future.done() else None


def _asking(transition: int) -> ChangeState.Request:
    return ChangeState.Request(transition=Transition(id=transition))

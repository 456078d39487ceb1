"""What every managed node here shares: transitions exclude each other and never raise."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNodeMixin, TransitionCallbackReturn
from rclpy.node import Node

from gps_denied_inference.node.rclpy_compat import (
    RCLError,
    destroy_state_machine,
    guard_change_state,
    lifecycle_state,
)


class ManagedNode(LifecycleNodeMixin, Node):
    """A lifecycle node whose state and services answer while a transition runs.

    Needs an executor of several threads.

    Attributes:
        interrupted: set when the process is asked to end.
        is_finalized: True once shut down: the process has nothing left to do.
        has_hung: True once a thread was left to a forward pass that hangs.
        exit_code: of the process; other than 0 ends it.
    """

    def __init__(
        self, node_name: str, *, enable_communication_interface: bool = True, **arguments: Any
    ) -> None:
        Node.__init__(self, node_name, **arguments)
        # Reentrant, so that get_state answers while a transition runs; transitions exclude each
        # other by _transition.
        LifecycleNodeMixin.__init__(
            self,
            enable_communication_interface=enable_communication_interface,
            callback_group=ReentrantCallbackGroup(),
        )
        self._transition = threading.Lock()
        self.interrupted = threading.Event()
        self.is_finalized = False
        self.has_hung = False
        self.exit_code = 0
        if enable_communication_interface:
            guard_change_state(self, self._guarded)

    def _guarded(self, change_state: Callable[..., Any]) -> Callable[..., Any]:
        return functools.partial(self._change_state_guarded, change_state)

    def _change_state_guarded(
        self, change_state: Callable[..., Any], request: Any, response: Any
    ) -> Any:
        """Answer a change_state request that cannot be met with ``success = false``.

        rclpy lets an invalid transition raise out of the service callback on some distributions,
        which would end the process on a mistyped command.
        """
        if not self._transition.acquire(blocking=False):
            self.get_logger().warning("transition refused: another one is still running")
            response.success = False
            return response
        try:
            answer = change_state(request, response)
            self.transition_ended()
            return answer
        except RCLError as error:
            _, label = lifecycle_state(self)
            self.get_logger().warning(
                f"transition {request.transition.id} {request.transition.label!r} is not possible "
                f"in state '{label}': {str(error).splitlines()[0]}"
            )
            response.success = False
            return response
        finally:
            self._transition.release()

    def transition_ended(self) -> None:
        """Take note of the lifecycle's state: a transition has led to it, or failed back to it."""

    def trigger_configure(self) -> TransitionCallbackReturn:
        """Request configure, as all that follow do for theirs, from this process."""
        return self._ended(super().trigger_configure())

    def trigger_cleanup(self) -> TransitionCallbackReturn:
        """Request cleanup."""
        return self._ended(super().trigger_cleanup())

    def trigger_shutdown(self) -> TransitionCallbackReturn:
        """Request shutdown."""
        return self._ended(super().trigger_shutdown())

    def trigger_activate(self) -> TransitionCallbackReturn:
        """Request activate."""
        return self._ended(super().trigger_activate())

    def trigger_deactivate(self) -> TransitionCallbackReturn:
        """Request deactivate."""
        return self._ended(super().trigger_deactivate())

    def _ended(self, result: TransitionCallbackReturn) -> TransitionCallbackReturn:
        self.transition_ended()
        return result

    def transit(
        self, trigger: Callable[[], TransitionCallbackReturn], still: Callable[[], bool]
    ) -> bool | None:
        """Run a transition from a thread of this process once no other one runs.

        Args:
            trigger: one of ``trigger_*``.
            still: asked once it could begin: False = it is not wanted any more.

        Returns:
            Whether it succeeded; None where it was not wanted or not possible.
        """
        with self._transition:
            if not still():
                return None
            try:
                return trigger() == TransitionCallbackReturn.SUCCESS
            except RCLError:
                return None

    def end_transition(self, timeout: float) -> bool:
        """Wait until no transition runs; False if one still does after ``timeout`` seconds."""
        if not self._transition.acquire(timeout=timeout):
            return False
        self._transition.release()
        return True

    def destroy_node(self) -> None:
        """Destroy the node and the lifecycle services, which rclpy leaves to the collector."""
        Node.destroy_node(self)
        destroy_state_machine(self)

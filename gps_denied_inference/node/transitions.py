"""How a transition of a managed node ends when it breaks."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from typing import TypeVar

from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.node import Node

N = TypeVar("N", bound=Node)

SUCCESS = TransitionCallbackReturn.SUCCESS
FAILURE = TransitionCallbackReturn.FAILURE
ERROR = TransitionCallbackReturn.ERROR


def reported(
    transition: Callable[[N, LifecycleState], TransitionCallbackReturn],
) -> Callable[[N, LifecycleState], TransitionCallbackReturn]:
    """Log the traceback of a defect in a transition and answer ERROR.

    rclpy turns an exception into ERROR by itself, but says nothing of it.
    """

    @functools.wraps(transition)
    def guarded(node: N, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(node, state)
        except Exception:  # noqa: BLE001 - whatever it is, on_error gives everything back
            node.get_logger().error(f"{transition.__name__} broke:\n{traceback.format_exc()}")
            return ERROR

    return guarded

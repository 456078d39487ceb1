"""How a transition of a managed node ends when it breaks."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from typing import Any, Protocol

from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn

from gps_denied_inference.errors import GpsDeniedInferenceError
from gps_denied_inference.thermal.state import one_line

SUCCESS = TransitionCallbackReturn.SUCCESS
FAILURE = TransitionCallbackReturn.FAILURE
ERROR = TransitionCallbackReturn.ERROR


class ManagedNode(Protocol):
    """What :func:`reported` asks of a node."""

    broken: str

    def get_logger(self) -> Any:
        """Return the node's logger."""


def described(error: BaseException) -> str:
    """Return one line that says what ``error`` says.

    This package's own errors are written to be read as they are; of any other, which may be a
    library's, its type is named too.
    """
    line = one_line(str(error))
    if isinstance(error, GpsDeniedInferenceError):
        return line
    name = type(error).__name__ if type(error).__module__ == "builtins" else _full_name(error)
    return f"{name}: {line}" if line else name


def _full_name(error: BaseException) -> str:
    return f"{type(error).__module__}.{type(error).__name__}"


def traced(error: BaseException) -> str:
    """Return the traceback of ``error``, for the debug level."""
    return "".join(traceback.format_exception(error)).rstrip()


def reported(
    transition: Callable[[Any, LifecycleState], TransitionCallbackReturn],
) -> Callable[[Any, LifecycleState], TransitionCallbackReturn]:
    """Turn whatever a transition raises into ERROR, with one line in the log.

    The line stays in the node's ``broken`` until ``on_error`` puts it into the status; the
    traceback is logged at the debug level. rclpy turns an exception into ERROR by itself, but says
    nothing of it, and lets SystemExit and KeyboardInterrupt through.
    """

    @functools.wraps(transition)
    def guarded(node: ManagedNode, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(node, state)
        except BaseException as error:  # noqa: BLE001 - on_error gives everything back
            node.broken = f"{transition.__name__.removeprefix('on_')} broke: {described(error)}"
            node.get_logger().error(node.broken)
            node.get_logger().debug(traced(error))
            return ERROR

    return guarded

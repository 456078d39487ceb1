"""The executor's turn, made safe against entities that a transition destroys meanwhile."""

from __future__ import annotations

from rclpy.exceptions import InvalidHandle
from rclpy.executors import Executor

ROW_LIMIT = 100
"""So many lost turns in a row are no race any more."""


class Turns:
    """Spins an executor turn by turn while transitions run in its other threads.

    rclpy lists what to wait for, then takes hold of each entry. A publisher or subscription whose
    QoS events are on that list may be destroyed in between by a cleanup, and rclpy (jazzy, kilted)
    then raises InvalidHandle, which would end the process. The entity is gone from the next list.

    Args:
        executor: has the nodes added already.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._lost = 0

    def take(self, timeout: float) -> None:
        """Wait at most ``timeout`` s for one callback and start it.

        Raises:
            InvalidHandle: it came in ``ROW_LIMIT`` turns without a good one between.
        """
        try:
            self._executor.spin_once(timeout_sec=timeout)
        except InvalidHandle:
            self._lost += 1
            if self._lost >= ROW_LIMIT:
                raise
        else:
            self._lost = 0

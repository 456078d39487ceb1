"""Says in status, diagnostics and log whether the task gives its result."""

from __future__ import annotations

import threading
import time

from rclpy.node import Node

from gps_denied_inference.pipeline.task_health import Finding
from gps_denied_inference.session import InferenceSession


class TaskWatch:
    """Looks at the task's health while the node is active, and logs each cause once per onset.

    Any thread may call.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._lock = threading.Lock()
        self._active_since: float | None = None
        self._known: str | None = None

    def begin(self) -> None:
        """Note that the node is active from now."""
        with self._lock:
            self._active_since, self._known = time.monotonic(), None

    def end(self) -> None:
        """Note that it no longer is: nothing is expected."""
        with self._lock:
            self._active_since = None

    def look(self, session: InferenceSession | None, reference_waits: bool) -> Finding | None:
        """Return why the task does not give its result; None where it does, or none is due.

        Args:
            session: the open session.
            reference_waits: True where a reference came and is used with the next frame.
        """
        with self._lock:
            if self._active_since is None or session is None or not session.is_open:
                return None
            finding = session.health.finding(
                session.reference,
                time.monotonic() - self._active_since,
                self._node.resolve_topic_name("reference/image"),
                reference_waits,
            )
            self._log(session.settings.task, finding)
        return finding

    def _log(self, task: str, finding: Finding | None) -> None:
        cause = None if finding is None else finding.cause
        if cause == self._known:
            return
        self._known = cause
        if finding is None:
            self._node.get_logger().info(f"task '{task}' gives its result again")
        else:
            self._node.get_logger().warning(f"task '{task}' gives no result: {finding.line}")

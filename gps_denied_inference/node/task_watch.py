"""Says in status, diagnostics and log whether the task gives its result."""

from __future__ import annotations

import math
import threading
import time

from rclpy.node import Node

from gps_denied_inference.node.inputs import FrameInputs
from gps_denied_inference.node.outputs import ResultPublishers
from gps_denied_inference.pipeline.accounting import AccountSnapshot
from gps_denied_inference.pipeline.task_health import Finding
from gps_denied_inference.stream import CameraStream

NO_CLOUD = "no cloud"


class TaskWatch:
    """Looks at one camera's task while the node is active, and logs each cause once per onset.

    Any thread may call.

    Args:
        node: whose log it is.
        camera: its name; empty = the only camera.
    """

    def __init__(self, node: Node, camera: str = "") -> None:
        self._node = node
        self._of = f" of camera '{camera}'" if camera else ""
        self._lock = threading.Lock()
        self._active_since: float | None = None
        self._known: str | None = None
        self._answered = (0, 0.0)

    def begin(self) -> None:
        """Note that the node is active from now."""
        with self._lock:
            self._active_since, self._known = time.monotonic(), None
            self._answered = (-1, time.monotonic())

    def end(self) -> None:
        """Note that it no longer is: nothing is expected."""
        with self._lock:
            self._active_since = None

    def look(
        self,
        task: str,
        stream: CameraStream | None,
        inputs: FrameInputs,
        outputs: ResultPublishers,
        reference_waits: bool,
        account: AccountSnapshot,
        stall_timeout: float,
    ) -> tuple[Finding | None, Finding | None]:
        """Return why the task does not give its result, and of it, why no frame comes.

        Either is None where nothing is wrong, or nothing is due.

        Args:
            task: the node's.
            stream: the camera's; None while nothing is open.
            inputs, outputs: the camera's.
            reference_waits: True where a reference came and is used with the next frame.
            account: the newest.
            stall_timeout: s without a frame from which that is a fault.
        """
        with self._lock:
            since, now = self._active_since, time.monotonic()
            if since is None or stream is None:
                return None, None
            active_for = now - since
            if account.frames_out != self._answered[0]:
                self._answered = (account.frames_out, now)
            waited = account.time_since_frame
            waited = active_for if math.isnan(waited) else min(waited, active_for)
            silent = None
            if waited > stall_timeout:
                silent = inputs.frames_missing(account.frames_in)
                if silent is not None:
                    line = f"no frame for {waited:.1f} s: {silent.line}"
                    silent = Finding(f"no frame: {silent.cause}", line)
            finding = (
                silent
                or self._unanswered(account, now - self._answered[1], stall_timeout)
                or stream.health.finding(
                    stream.reference,
                    active_for,
                    self._node.resolve_topic_name(inputs.reference_topic),
                    reference_waits,
                )
            )
            missing = outputs.cloud_missing
            if finding is None and missing:
                finding = Finding(f"{NO_CLOUD}: {missing}", f"no feature_cloud: {missing}")
            self._log(task, finding)
        return finding, silent

    @staticmethod
    def _unanswered(account: AccountSnapshot, waited: float, timeout: float) -> Finding | None:
        """Judge frames that come and are all dropped."""
        if waited <= timeout or math.isnan(account.time_since_frame) or not account.drops:
            return None
        reasons = ", ".join(f"{reason} {count}" for reason, count in account.drops.items())
        return Finding(
            "no answers",
            f"no frame was answered for {waited:.1f} s, though frames come (dropped in all: "
            f"{reasons})",
        )

    def _log(self, task: str, finding: Finding | None) -> None:
        cause = None if finding is None else finding.cause
        if cause == self._known:
            return
        self._known = cause
        if finding is None or cause is None:
            self._node.get_logger().info(f"task '{task}'{self._of} gives its result again")
        elif not cause.startswith(NO_CLOUD):  # the publisher of the cloud logs that
            self._node.get_logger().warning(
                f"task '{task}'{self._of} gives no result: {finding.line}"
            )

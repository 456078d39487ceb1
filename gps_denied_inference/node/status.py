"""~/status: what really runs and where every frame went."""

from __future__ import annotations

import contextlib

from rclpy.node import Node

from gps_denied_inference.errors import ConfigurationError
from gps_denied_inference.msg import InferenceStatus
from gps_denied_inference.node import qos
from gps_denied_inference.pipeline.accounting import AccountSnapshot
from gps_denied_inference.pipeline.task_health import Finding
from gps_denied_inference.session import InferenceSession


class StatusPublisher:
    """Publishes InferenceStatus, latched, whenever it is told to.

    Attributes:
        state: one of InferenceStatus.STATE_*.
        detail: one line: what is being done, or the last error.
        progress: 0..1 while configuring, NaN otherwise.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._publisher = node.create_publisher(
            InferenceStatus, **qos.publisher(node, "~/status", qos.STATE)
        )
        self.state = InferenceStatus.STATE_UNCONFIGURED
        self.detail = ""
        self.progress = float("nan")

    def change(self, state: int, detail: str = "", progress: float = float("nan")) -> None:
        """Set state and detail; the next :meth:`publish` carries them."""
        self.state, self.detail, self.progress = state, detail, progress

    def publish(
        self,
        session: InferenceSession | None,
        account: AccountSnapshot,
        finding: Finding | None = None,
    ) -> InferenceStatus:
        """Publish and return the status; ``finding`` is why the task does not give its result."""
        message = InferenceStatus(state=self.state, detail=self.detail, progress=self.progress)
        message.header.stamp = self._node.get_clock().now().to_msg()
        message.engine_load_time = float("nan")
        if session is not None and session.is_open:
            # Another thread may close it between the two lines: then nothing runs any more.
            with contextlib.suppress(ConfigurationError):
                self._describe_engine(message, session)
        message.frames_in = account.frames_in
        message.frames_out = account.frames_out
        message.frames_dropped = account.frames_dropped
        message.drop_reasons = list(account.drops)
        message.drop_counts = list(account.drops.values())
        message.rate = account.rate
        message.time_since_frame = account.time_since_frame
        message.stages = list(account.latencies)
        message.latency_p50 = [latency.p50 for latency in account.latencies.values()]
        message.latency_p95 = [latency.p95 for latency in account.latencies.values()]
        message.latency_p99 = [latency.p99 for latency in account.latencies.values()]
        message.task_ok = finding is None
        if finding is not None:
            message.task_detail = finding.line
        elif session is not None:
            message.task_detail = session.reference_described
        self._publisher.publish(message)
        return message

    @staticmethod
    def _describe_engine(message: InferenceStatus, session: InferenceSession) -> None:
        handle, readback = session.handle, session.readback
        settings, manifest = session.settings, handle.entry.manifest
        message.task = settings.task
        message.runtime = readback.runtime
        message.runtime_version = readback.version
        message.provider = readback.provider
        message.device = readback.device
        message.precision = readback.precision
        if session.selection is not None:
            message.selection = "; ".join(
                f"{name}: {reason}" for name, reason in session.selection.passed_over
            )
        message.model = manifest.model
        message.model_sha256 = manifest.model_sha256
        message.engine_sha256 = manifest.artifact_sha256
        message.engine_height, message.engine_width = handle.inputs[0].shape[:2]
        message.max_keypoints = settings.max_keypoints
        message.engine_load_time = handle.load_time

    def destroy(self) -> None:
        """Give the publisher back."""
        self._node.destroy_publisher(self._publisher)

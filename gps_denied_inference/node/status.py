"""~/status: what really runs and where every frame went."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from lifecycle_msgs.msg import State as LifecycleState
from rclpy.lifecycle import LifecycleNodeMixin

from gps_denied_inference.errors import ConfigurationError
from gps_denied_inference.msg import CameraStatus, InferenceStatus
from gps_denied_inference.node import messages, qos
from gps_denied_inference.node.rclpy_compat import lifecycle_state
from gps_denied_inference.pipeline.accounting import AccountSnapshot
from gps_denied_inference.pipeline.task_health import Finding
from gps_denied_inference.session import InferenceSession

SHOWN_AS = {
    LifecycleState.TRANSITION_STATE_ACTIVATING: InferenceStatus.STATE_INACTIVE,
    LifecycleState.TRANSITION_STATE_DEACTIVATING: InferenceStatus.STATE_ACTIVE,
    LifecycleState.TRANSITION_STATE_CLEANINGUP: InferenceStatus.STATE_INACTIVE,
    LifecycleState.TRANSITION_STATE_SHUTTINGDOWN: InferenceStatus.STATE_UNKNOWN,
    LifecycleState.TRANSITION_STATE_ERRORPROCESSING: InferenceStatus.STATE_UNKNOWN,
}
"""What is published while the lifecycle is between states; all others are shown as they are."""


@dataclass(frozen=True)
class Said:
    """What the node says of its state.

    Attributes:
        detail: one line: what is being done, or the last error.
        progress: 0..1 while configuring, NaN otherwise.
    """

    detail: str = ""
    progress: float = float("nan")


def camera_status(
    name: str, account: AccountSnapshot, finding: Finding | None = None, described: str = ""
) -> CameraStatus:
    """Fill a CameraStatus.

    Args:
        name: of the camera; empty = the only one.
        account: its own.
        finding: why its task does not give its result.
        described: how its reference is seen.
    """
    message = CameraStatus(name=name)
    _count(message, account)
    stamps = account.stamps
    message.stamps_zero = stamps.zero
    message.stamps_repeated = stamps.repeated
    message.stamps_backward = stamps.backward
    message.stamp_gaps = stamps.gaps
    message.frames_missing = stamps.missing
    message.stamp_period = stamps.period
    message.stamp_jitter = stamps.jitter
    for field in messages.QUALITY:
        setattr(message, field, getattr(account.quality, field))
    message.task_ok = finding is None
    message.task_detail = described if finding is None else finding.line
    return message


def _count(message: CameraStatus | InferenceStatus, account: AccountSnapshot) -> None:
    """Fill in the fields that both messages have: frames in, out and dropped, and their rate."""
    message.frames_in = account.frames_in
    message.frames_out = account.frames_out
    message.frames_dropped = account.frames_dropped
    message.drop_reasons = list(account.drops)
    message.drop_counts = list(account.drops.values())
    message.rate = account.rate
    message.time_since_frame = account.time_since_frame


class StatusPublisher:
    """Publishes InferenceStatus, latched, whenever it is told to.

    The state is the lifecycle's own, read when a status is made. Under ``lock``, which whoever
    publishes holds, statuses go out in the order in which they are made.
    """

    def __init__(self, node: LifecycleNodeMixin) -> None:
        self._node = node
        self._publisher = node.create_publisher(
            InferenceStatus, **qos.publisher(node, "~/status", qos.STATE)
        )
        self._said = Said()
        self.lock = threading.RLock()

    @property
    def state(self) -> int:
        """One of InferenceStatus.STATE_*."""
        state, _ = lifecycle_state(self._node)
        return int(SHOWN_AS.get(state, state))

    @property
    def detail(self) -> str:
        """One line: what is being done, or the last error."""
        return self._said.detail

    def change(
        self, detail: str, progress: float = float("nan"), only_in: int | None = None
    ) -> bool:
        """Set what the next :meth:`publish` says; False where that is not the node's to say.

        Args:
            only_in: the lifecycle's state that ``detail`` speaks of; in any other, what is said
                stays. None = it is said by a transition, in whatever state it leads to.
        """
        with self.lock:
            if only_in is not None and lifecycle_state(self._node)[0] != only_in:
                return False
            self._said = Said(detail, progress)
            return True

    def publish(
        self,
        session: InferenceSession | None,
        account: AccountSnapshot,
        cameras: Sequence[CameraStatus],
        fault: Finding | None = None,
    ) -> InferenceStatus:
        """Publish and return the status.

        Args:
            session: the node's.
            account: of all cameras together.
            cameras: of each of them.
            fault: what is wrong with all of them.
        """
        with self.lock:
            return self._publish(session, account, cameras, fault)

    def _publish(
        self,
        session: InferenceSession | None,
        account: AccountSnapshot,
        cameras: Sequence[CameraStatus],
        fault: Finding | None,
    ) -> InferenceStatus:
        said = self._said
        message = InferenceStatus(state=self.state, detail=said.detail, progress=said.progress)
        message.header.stamp = self._node.get_clock().now().to_msg()
        message.engine_load_time = float("nan")
        if session is not None and session.is_open:
            # Another thread may close it between the two lines: then nothing runs any more.
            with contextlib.suppress(ConfigurationError):
                self._describe_engine(message, session)
        _count(message, account)
        message.stages = list(account.latencies)
        message.latency_p50 = [latency.p50 for latency in account.latencies.values()]
        message.latency_p95 = [latency.p95 for latency in account.latencies.values()]
        message.latency_p99 = [latency.p99 for latency in account.latencies.values()]
        message.cameras = list(cameras)
        message.task_ok = fault is None and all(camera.task_ok for camera in cameras)
        if fault is not None:
            message.task_detail = fault.line
        else:
            message.task_detail = "; ".join(
                f"{camera.name}: {camera.task_detail}" if camera.name else camera.task_detail
                for camera in cameras
                if camera.task_detail and camera.task_ok == message.task_ok
            )
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
        message.engine_height, message.engine_width = handle.inputs[0].shape[-3:-1]
        message.max_keypoints = settings.max_keypoints
        message.engine_load_time = handle.load_time

    def destroy(self) -> None:
        """Give the publisher back."""
        self._node.destroy_publisher(self._publisher)

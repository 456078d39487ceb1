"""/diagnostics: one DiagnosticStatus each for the runtime, the frames, the task and the heat.

Each task is a function of plain state, so it can be tested without a node; the publisher is thin.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Sequence
from itertools import zip_longest

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from gps_denied_inference.msg import CameraStatus, InferenceStatus
from gps_denied_inference.node import qos
from gps_denied_inference.node.inputs import image_topic
from gps_denied_inference.node.recovery import Recovery
from gps_denied_inference.node.silence import LARGE_IMAGES, mixed
from gps_denied_inference.pipeline.accounting import LOST
from gps_denied_inference.pipeline.task_health import Finding
from gps_denied_inference.settings import Settings
from gps_denied_inference.thermal.state import ThermalLevel, ThermalState

OK, WARN, ERROR, STALE = (
    DiagnosticStatus.OK,
    DiagnosticStatus.WARN,
    DiagnosticStatus.ERROR,
    DiagnosticStatus.STALE,
)

LOSS_SHARE = 0.05
"""Share of frames in a period that may go unanswered before it is a warning."""

LOOKS_UNTIL_LOGGED = 3
"""In a row."""


def _values(**values: object) -> list[KeyValue]:
    return [KeyValue(key=key, value=str(value)) for key, value in values.items()]


def runtime_task(
    status: InferenceStatus, fault: Finding | None = None, restarts: int = 0
) -> DiagnosticStatus:
    """Whether an engine is loaded, and which; ``fault``: of its forward passes."""
    result = DiagnosticStatus(name="runtime")
    failed = "failed" in status.detail or "broke" in status.detail
    if fault is not None:
        result.level, result.message = ERROR, fault.line
    elif status.runtime:
        result.level = OK
        result.message = f"{status.model} on {status.runtime} ({status.provider})"
    elif failed:
        result.level, result.message = ERROR, status.detail
    else:
        result.level, result.message = OK, status.detail or "no engine is loaded"
    result.values = _values(
        model=status.model,
        model_sha256=status.model_sha256,
        runtime=status.runtime,
        runtime_version=status.runtime_version,
        provider=status.provider,
        device=status.device,
        precision=status.precision,
        engine_sha256=status.engine_sha256,
        restarts=restarts,
        engine_load_time_s=f"{status.engine_load_time:.3f}",
    )
    return result


class FramesTask:
    """Rate, drops and a stalled camera. Compares with the status before.

    Args:
        camera: its name; empty = the only camera.
    """

    def __init__(self, camera: str = "") -> None:
        self._name = f"frames of {camera}" if camera else "frames"
        self._previous: tuple[int, int, int] = (0, 0, 0)

    def __call__(
        self,
        status: InferenceStatus,
        settings: Settings,
        active_for: float,
        silent: Finding | None = None,
        publishers: int = 1,
        mixed: str = "",
        camera: CameraStatus | None = None,
    ) -> DiagnosticStatus:
        """Judge the frames since the call before.

        Args:
            status: the newest.
            settings: for the time until a silent camera counts as stalled.
            active_for: s since activate, NaN while not active.
            silent: why no frame comes, where that is known.
            publishers: on the image topic.
            mixed: who they are, where they are several.
            camera: the camera's part of ``status``; None = all of it.
        """
        result = DiagnosticStatus(name=self._name, level=OK)
        counts = status if camera is None else camera
        drops = dict(zip(counts.drop_reasons, counts.drop_counts, strict=False))
        last_in, last_dropped, last_lost = self._previous
        if counts.frames_in < last_in:  # configured anew
            last_in = last_dropped = last_lost = 0
        came = counts.frames_in - last_in
        dropped = counts.frames_dropped - last_dropped
        lost = drops.get(LOST, 0) - last_lost
        self._previous = (counts.frames_in, counts.frames_dropped, drops.get(LOST, 0))
        waited = active_for if math.isnan(counts.time_since_frame) else counts.time_since_frame
        if status.state != InferenceStatus.STATE_ACTIVE:
            result.message = "not active"
        elif min(waited, active_for) > settings.stall_timeout:
            result.level = ERROR
            result.message = (
                f"no frame for {min(waited, active_for):.1f} s" if silent is None else silent.line
            )
        elif mixed:
            result.level, result.message = WARN, mixed
        elif came and lost / came > LOSS_SHARE:
            result.level = WARN
            result.message = (
                f"{lost} of the last {came} frames lost on the way from the camera: {LARGE_IMAGES}"
            )
        elif came and dropped / came > LOSS_SHARE:
            reasons = ", ".join(f"{reason} {count}" for reason, count in drops.items())
            result.level = WARN
            result.message = f"{dropped} of the last {came} frames dropped (in all: {reasons})"
        else:
            result.message = "frames are answered" if came else "no new frame yet"
        result.values = _values(
            frames_in=counts.frames_in,
            frames_out=counts.frames_out,
            frames_dropped=counts.frames_dropped,
            publishers=publishers,
            rate_hz=f"{counts.rate:.2f}",
            **{f"dropped_{reason}": count for reason, count in drops.items()},
            **{
                f"{stage}_p95_ms": f"{1e3 * seconds:.2f}"
                for stage, seconds in zip(status.stages, status.latency_p95, strict=False)
            },
        )
        return result


def result_task(status: InferenceStatus) -> DiagnosticStatus:
    """Whether the answered frames give what the task is for."""
    result = DiagnosticStatus(name="task", level=OK if status.task_ok else WARN)
    if not status.task_ok:
        result.message = status.task_detail
    elif status.state != InferenceStatus.STATE_ACTIVE:
        result.message = "not active"
    else:
        result.message = status.task_detail or "no fault is known"
    result.values = _values(task=status.task)
    return result


def thermal_task(state: ThermalState) -> DiagnosticStatus:
    """The thermal level; UNKNOWN is stale, never OK."""
    levels = {
        ThermalLevel.UNKNOWN: STALE,
        ThermalLevel.NOMINAL: OK,
        ThermalLevel.WARM: WARN,
        ThermalLevel.THROTTLING: WARN,
        ThermalLevel.CRITICAL: ERROR,
    }
    result = DiagnosticStatus(name="thermal", level=levels[state.level])
    result.message = f"{state.level.name}: {state.reason}" if state.reason else state.level.name
    result.values = _values(
        source=state.source,
        **{sensor.name: f"{sensor.temperature:.1f} degC" for sensor in state.sensors},
    )
    return result


class DiagnosticsPublisher:
    """Publishes the tasks' answers under the node's name."""

    def __init__(self, node: Node) -> None:
        self._node = node
        profile = qos.publisher(node, "/diagnostics", qos.DIAGNOSTICS)
        self._publisher = node.create_publisher(DiagnosticArray, **profile)
        self._frames: dict[str, FramesTask] = {}
        self._active_since = float("nan")
        self._published = float("-inf")
        self._mixed_looks: dict[str, int] = {}

    def publish(
        self,
        status: InferenceStatus,
        thermal_state: ThermalState,
        settings: Settings,
        silences: Sequence[Finding | None] = (),
        recovery: Recovery | None = None,
    ) -> None:
        """Publish, at most at the status rate however often the status changes.

        Args:
            silences: why no frame of each camera comes, where that is known.
            recovery: knows of forward passes that hang or fail.
        """
        # Not the node's clock: a simulated one may stand still, and a stall must be seen then too.
        now = time.monotonic()
        if status.state != InferenceStatus.STATE_ACTIVE:
            self._active_since = float("nan")
        elif math.isnan(self._active_since):
            self._active_since = now
        if now - self._published < 0.5 / settings.status_rate:
            return
        self._published = now
        tasks = [
            runtime_task(status, recovery.fault, recovery.restarts)
            if recovery is not None
            else runtime_task(status),
            *(
                self._frames_of(camera, status, settings, silent)
                for camera, silent in zip_longest(status.cameras, silences)
            ),
            result_task(status),
            thermal_task(thermal_state),
        ]
        name = self._node.get_fully_qualified_name()
        for task in tasks:
            task.name = f"{name}: {task.name}"
            task.hardware_id = status.device or platform.node()
        message = DiagnosticArray(status=tasks)
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)

    def _frames_of(
        self,
        camera: CameraStatus,
        status: InferenceStatus,
        settings: Settings,
        silent: Finding | None,
    ) -> DiagnosticStatus:
        topic = self._node.resolve_topic_name(image_topic(settings, camera.name))
        publishers = int(self._node.count_publishers(topic))
        active_for = self._published - self._active_since
        said = self._mixed(topic, publishers) if math.isfinite(self._active_since) else ""
        task = self._frames.setdefault(camera.name, FramesTask(camera.name))
        return task(status, settings, active_for, silent, publishers, said, camera)

    def _mixed(self, topic: str, publishers: int) -> str:
        """Return who publishes on an image topic where they are several.

        It is logged once, and when seen again: the first time names may not be known yet, and one
        may be a camera's that has just been started anew.
        """
        line = mixed(self._node, topic) if publishers > 1 else ""
        self._mixed_looks[topic] = self._mixed_looks.get(topic, 0) + 1 if line else 0
        if self._mixed_looks[topic] == LOOKS_UNTIL_LOGGED:
            self._node.get_logger().warning(line)
        return line

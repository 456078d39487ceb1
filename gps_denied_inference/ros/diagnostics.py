"""/diagnostics: one DiagnosticStatus each for the runtime, the frames and the temperature.

Each task is a function of plain state, so it can be tested without a node; the publisher is thin.
"""

from __future__ import annotations

import math
import platform

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from gps_denied_inference.msg import InferenceStatus
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


def _values(**values: object) -> list[KeyValue]:
    return [KeyValue(key=key, value=str(value)) for key, value in values.items()]


def runtime_task(status: InferenceStatus) -> DiagnosticStatus:
    """Whether an engine is loaded, and which."""
    result = DiagnosticStatus(name="runtime")
    failed = "failed" in status.detail or "broke" in status.detail
    if status.runtime:
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
        provider=status.provider,
        device=status.device,
        precision=status.precision,
        engine_sha256=status.engine_sha256,
        engine_load_time_s=f"{status.engine_load_time:.3f}",
    )
    return result


class FramesTask:
    """Rate, drops and a stalled camera. Compares with the status before."""

    def __init__(self) -> None:
        self._previous: tuple[int, int] = (0, 0)

    def __call__(
        self, status: InferenceStatus, settings: Settings, active_for: float
    ) -> DiagnosticStatus:
        """Args: ``active_for`` is s since activate, NaN while not active."""
        result = DiagnosticStatus(name="frames", level=OK)
        last_in, last_dropped = self._previous
        if status.frames_in < last_in:  # configured anew
            last_in = last_dropped = 0
        came = status.frames_in - last_in
        dropped = status.frames_dropped - last_dropped
        self._previous = (status.frames_in, status.frames_dropped)
        waited = active_for if math.isnan(status.time_since_frame) else status.time_since_frame
        if status.state != InferenceStatus.STATE_ACTIVE:
            result.message = "not active"
        elif min(waited, active_for) > settings.stall_timeout:
            result.level = ERROR
            result.message = (
                f"no frame for {waited:.1f} s: is the camera running, does its topic match, and "
                "do large images pass (see config/fastdds_large_images.xml)?"
            )
        elif came and dropped / came > LOSS_SHARE:
            reasons = ", ".join(
                f"{reason} {count}"
                for reason, count in zip(status.drop_reasons, status.drop_counts, strict=False)
            )
            result.level = WARN
            result.message = f"{dropped} of the last {came} frames dropped (in all: {reasons})"
        else:
            result.message = "frames are answered"
        result.values = _values(
            frames_in=status.frames_in,
            frames_out=status.frames_out,
            frames_dropped=status.frames_dropped,
            rate_hz=f"{status.rate:.2f}",
            **{
                f"dropped_{reason}": count
                for reason, count in zip(status.drop_reasons, status.drop_counts, strict=False)
            },
            **{
                f"{stage}_p95_ms": f"{1e3 * seconds:.2f}"
                for stage, seconds in zip(status.stages, status.latency_p95, strict=False)
            },
        )
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
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._frames = FramesTask()
        self._active_since = float("nan")
        self._published = float("-inf")

    def publish(
        self, status: InferenceStatus, thermal_state: ThermalState, settings: Settings
    ) -> None:
        """Publish, at most at the status rate however often the status changes."""
        now = self._node.get_clock().now().nanoseconds * 1e-9
        if status.state != InferenceStatus.STATE_ACTIVE:
            self._active_since = float("nan")
        elif math.isnan(self._active_since):
            self._active_since = now
        if 0.0 <= now - self._published < 0.5 / settings.status_rate:
            return
        self._published = now
        tasks = [
            runtime_task(status),
            self._frames(status, settings, now - self._active_since),
            thermal_task(thermal_state),
        ]
        name = self._node.get_fully_qualified_name()
        for task in tasks:
            task.name = f"{name}: {task.name}"
            task.hardware_id = status.device or platform.node()
        message = DiagnosticArray(status=tasks)
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)

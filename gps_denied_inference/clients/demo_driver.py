"""Flies a source past the real node: publishes its frames, collects the answers, counts.

One frame is in flight at a time unless a rate is given, so that none need be lost; what the node
drops it says in ``~/status``. Everything stays on this machine, in a ROS domain of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import Image

from gps_denied_inference.clients.node_process import NODE_NAME, NodeProcess
from gps_denied_inference.clients.own_domain import frame_message, isolated_node, nanoseconds
from gps_denied_inference.demo.flight import Flight, NodeStatus
from gps_denied_inference.demo.frame import FrameSource
from gps_denied_inference.errors import InferenceError
from gps_denied_inference.msg import FeatureArray, InferenceStatus
from gps_denied_inference.node import qos
from gps_denied_inference.pipeline.features import Features
from gps_denied_inference.pipeline.finding_log import FindingLog

Report = Callable[[str, int], None]
"""Called with what is being done and the number of frames answered."""

_ANSWER_TIMEOUT = 3.0  # s, after which the next frame goes out although this one is not accounted
_SETTLE_TIMEOUT = 10.0
_DISCOVERY_TIMEOUT = 15.0
_STATUS_RATE = 20.0  # Hz


def fly(
    source: FrameSource,
    parameters: Mapping[str, object],
    log: Path,
    on_answer: Callable[[int, Features], None],
    rate: float | None = None,
    report: Report = lambda what, answered: None,
) -> Flight:
    """Run the node over every frame of a source.

    Args:
        parameters: of ``inference_node``.
        log: file that takes what the node prints.
        on_answer: called with frame index and features, in the order of the frames.
        rate: Hz, publish at this rate whatever the node does; None waits for each answer.
        report: progress.

    Raises:
        ConfigurationError: the node refused to configure.
        InferenceError: the node could not be driven, or ended by itself.
    """
    with isolated_node() as (node, executor):
        flown = _FlightOverRos(node, executor, parameters, log, on_answer, rate, report)
        return flown.run(source)


class _FlightOverRos:
    def __init__(
        self,
        node: Node,
        executor: SingleThreadedExecutor,
        parameters: Mapping[str, object],
        log: Path,
        on_answer: Callable[[int, Features], None],
        rate: float | None,
        report: Report,
    ) -> None:
        self._node = node
        self._executor = executor
        self._parameters = {"status_rate": _STATUS_RATE, **parameters}
        self._log = log
        self._on_answer = on_answer
        self._rate = rate
        self._report = report
        self._sent: dict[int, tuple[int, float]] = {}  # stamp: (index, monotonic s)
        self._latencies: list[float] = []
        self._answered = 0
        self._found = FindingLog("statuses")
        self._is_flying = False
        self._kept: list[tuple[int, Features]] = []  # answers not yet handed on
        # The frames' publisher is announced before the clients of the node's services are, and
        # announcements come in order: once the node answers a service, it knows this publisher,
        # so that its subscription is matched at the node's end as soon as it exists.
        self._publisher = node.create_publisher(Image, "image", qos.DEMO_FRAMES)
        node.create_subscription(
            FeatureArray, f"{NODE_NAME}/features", self._take_features, qos.DEMO_ANSWERS
        )

    def run(self, source: FrameSource) -> Flight:
        with NodeProcess(
            self._node, self._executor, self._parameters, self._log, self._take_status
        ) as process:
            self._report("starting the node", 0)
            process.wait_until_up()
            begin = time.monotonic()
            process.configure()
            configure_time = time.monotonic() - begin
            process.activate()
            self._report("waiting for the node to subscribe", 0)
            self._wait_for_topics(process)
            begin = time.monotonic()
            self._is_flying = True
            published = self._publish_all(source, process)
            duration = time.monotonic() - begin
            self._is_flying = False
            status = self._settle(published, process)
            self._report("shutting the node down", self._answered)
            exit_code = process.shut_down()
        self._hand_on()
        return Flight(
            published=published,
            answered=self._answered,
            latencies=tuple(self._latencies),
            status=status,
            exit_code=exit_code,
            configure_time=configure_time,
            duration=duration,
            findings=tuple(self._found.lines),
        )

    def _take_status(self, status: InferenceStatus) -> None:
        if status.state == InferenceStatus.STATE_CONFIGURING and status.detail:
            self._report(status.detail, 0)
        if self._is_flying and status.state == InferenceStatus.STATE_ACTIVE:
            self._found.note_line("" if status.task_ok else status.task_detail)

    def _take_features(self, message: FeatureArray) -> None:
        now = time.monotonic()
        sent = self._sent.pop(nanoseconds(message.header.stamp), None)
        if sent is None:
            return  # a second answer to one frame, or one that was never sent: not counted
        index, begin = sent
        self._latencies.append(now - begin)
        self._answered += 1
        self._kept.append((index, _features(message)))
        self._report("flying", self._answered)

    def _hand_on(self) -> None:
        kept, self._kept = self._kept, []
        for index, features in sorted(kept, key=lambda answer: answer[0]):
            self._on_answer(index, features)

    def _wait_for_topics(self, process: NodeProcess) -> None:
        topic = f"{self._node.get_namespace().rstrip('/')}/{NODE_NAME}/features"

        def is_connected() -> bool:
            return (
                self._publisher.get_subscription_count() > 0
                and self._node.count_publishers(topic) > 0
            )

        if not process.wait(is_connected, _DISCOVERY_TIMEOUT):
            raise InferenceError(
                f"the active node did not subscribe to frames within {_DISCOVERY_TIMEOUT:g} s: "
                f"see {self._log}"
            )

    def _publish_all(self, source: FrameSource, process: NodeProcess) -> int:
        published = 0
        begin = time.monotonic()
        for frame in source:
            message = frame_message(frame)
            if self._rate is not None:
                due = begin + published / self._rate
                process.wait(lambda: False, max(0.0, due - time.monotonic()))
            self._sent[frame.stamp_ns] = (frame.index, time.monotonic())
            self._publisher.publish(message)
            published += 1
            if self._rate is None:
                process.wait(partial(self._is_accounted, published, process), _ANSWER_TIMEOUT)
                self._hand_on()  # while no frame is in flight: matching does not slow the node
        return published

    def _is_accounted(self, published: int, process: NodeProcess) -> bool:
        dropped = process.status.frames_dropped if process.status is not None else 0
        return self._answered + int(dropped) >= published

    def _settle(self, published: int, process: NodeProcess) -> NodeStatus:
        """Wait until the node's own counters cover every frame, and return its last account."""

        def is_settled() -> bool:
            status = process.status
            return (
                status is not None
                and status.frames_in >= published
                and status.frames_out >= self._answered
                and status.frames_out + status.frames_dropped >= status.frames_in
                and self._is_accounted(published, process)
            )

        process.wait(is_settled, _SETTLE_TIMEOUT)
        if process.status is None:
            raise InferenceError(f"the node never published its status: see {self._log}")
        return _plain(process.status)


def _features(message: FeatureArray) -> Features:
    def matrix(values: object, columns: int) -> np.ndarray:
        return np.asarray(values, np.float32).reshape(message.count, columns)

    return Features(
        keypoints=matrix(message.keypoints, 2),
        scores=np.asarray(message.scores, np.float32),
        descriptors=matrix(message.descriptors, message.descriptor_dim),
        width=message.image_width,
        height=message.image_height,
        model=message.model,
        model_sha256=message.model_sha256,
    )


def _plain(status: InferenceStatus) -> NodeStatus:
    return NodeStatus(
        runtime=status.runtime,
        provider=status.provider,
        device=status.device,
        precision=status.precision,
        selection=status.selection,
        model=status.model,
        model_sha256=status.model_sha256,
        engine_sha256=status.engine_sha256,
        engine_load_time=status.engine_load_time,
        frames_in=status.frames_in,
        frames_out=status.frames_out,
        drops=dict(zip(status.drop_reasons, map(int, status.drop_counts), strict=True)),
        stages={
            stage: (float(p50), float(p95))
            for stage, p50, p95 in zip(
                status.stages, status.latency_p50, status.latency_p95, strict=True
            )
        },
    )

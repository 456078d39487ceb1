"""Takes the newest frames, answers them, publishes. One thread owns the engine while active."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard

import numpy as np
import numpy.typing as npt
from std_msgs.msg import Header

from gps_denied_inference.errors import (
    DeviceOutOfMemoryError,
    FrameError,
    GpsDeniedInferenceError,
    InferenceHungError,
    InvalidOutputError,
)
from gps_denied_inference.node.transitions import described, traced
from gps_denied_inference.pipeline.accounting import (
    INFER_HUNG,
    INFERENCE_ERROR,
    INTERNAL_ERROR,
    INVALID_OUTPUT,
    LOST,
    OUT_OF_MEMORY,
    SUPERSEDED,
    FrameAccounting,
)
from gps_denied_inference.pipeline.instants import InstantLimiter, InstantSlots
from gps_denied_inference.runtimes.serial_thread import SerialThread
from gps_denied_inference.session import Frame, FrameResult, InferenceSession

POLL_PERIOD = 0.05
"""s between looks at whether the frame in work still runs, while stopping."""

ERROR_LOG_PERIOD = 5.0
"""s, at most one line per reason in this time: a broken camera sends 30 bad frames a second."""


class WorkedCamera(Protocol):
    """What the worker needs of a camera.

    Attributes:
        name: empty = the only camera.
        accounting: counts every frame in, out and dropped.
    """

    name: str
    accounting: FrameAccounting

    def decode(self, message: Any) -> npt.NDArray[np.uint8]:
        """Convert a message to uint8; raises FrameError."""
        ...

    def publish(self, image: npt.NDArray[np.uint8], result: FrameResult, header: Header) -> None:
        """Publish one result; the header is the frame's."""
        ...


@dataclass(frozen=True)
class _Taken:
    """A frame in work.

    Attributes:
        message: as it came.
        received, taken, converted: monotonic s.
        frame: decoded.
    """

    message: Any
    received: float
    taken: float
    converted: float
    frame: Frame


class FrameWorker:
    """Answers the newest frames, those of one instant together.

    Args:
        session: an open session; only this worker's thread runs it.
        cameras: in the order of the session's streams; methods know them by their places.
        logger: an rclpy logger.
        thread: where frames are answered; busy with them from start to stop.
    """

    def __init__(
        self,
        session: InferenceSession,
        cameras: Sequence[WorkedCamera],
        logger: Any,
        thread: SerialThread,
    ) -> None:
        self._session = session
        self._cameras = cameras
        self._logger = logger
        tolerance = session.settings.camera_tolerance
        self._slots: InstantSlots[tuple[Any, float]] = InstantSlots(len(cameras), tolerance)
        self._limiter = InstantLimiter(len(cameras), tolerance)
        self._references: list[Any] = [None] * len(cameras)
        self._references_seen = [""] * len(cameras)
        self._thread = thread
        self._ended: Future[None] | None = None
        self._logged: dict[tuple[int, str], float] = {}
        self._lock = threading.Lock()
        self._in_work: set[int] = set()
        self._abandoned = False
        self.failures_in_row = 0
        """Passes that the engine failed or answered with what cannot be, since its last answer."""
        self.last_failure = ""
        """The newest of them, in one line."""
        self.frame_rate_limit = 0.0
        """Hz, of each camera, by parameter; 0 = none."""
        self.thermal_rate_limit = 0.0
        """Hz, of each camera, by the thermal policy; 0 = none."""
        self.keypoint_limit = 0
        """By the thermal policy; 0 = none."""
        self.per_frame_debug_log = False

    def start(self) -> None:
        """Start answering."""
        self._ended = self._thread.submit(self._run)

    def stop(self, hung: Callable[[float], bool]) -> list[Any]:
        """Stop answering; return, once frames in work are finished, references not yet used.

        There is one for each camera, None where there is none.

        Args:
            hung: told for how many seconds this waits; True: the forward pass will not come back.

        Raises:
            InferenceHungError: it said so; see :attr:`abandoned`.
        """
        for camera in self._slots.close():
            self._cameras[camera].accounting.dropped("deactivated")
        if self._ended is not None:
            begin = time.monotonic()
            while not wait([self._ended], POLL_PERIOD).done:
                if hung(time.monotonic() - begin) and self._abandon():
                    raise InferenceHungError("a forward pass does not come back")
            self._ended.result()
        return self._references

    @property
    def thread_id(self) -> int:
        """Native id of the thread that answers."""
        return self._thread.native_id

    @property
    def abandoned(self) -> bool:
        """True where the thread is left to a forward pass that hangs: nothing may wait for it."""
        return self._abandoned

    def _abandon(self) -> bool:
        """Leave the thread to the frames in work; whatever that still gives is not published."""
        with self._lock:
            if self._in_work and not self._abandoned:
                self._abandoned = True
                for camera in self._in_work:
                    self._cameras[camera].accounting.dropped(INFER_HUNG)
            return self._abandoned

    def _inferred(self, *cameras: int) -> bool:
        """Note that frames in work came back; False where nobody waits for them any more."""
        with self._lock:
            self._in_work -= set(cameras)
            return not self._abandoned

    def offer(self, message: Any, camera: int = 0) -> None:
        """Take a frame from the subscription's thread. Never blocks, never raises."""
        now, stamp_ns = time.monotonic(), _stamp_ns(message)
        accounting = self._cameras[camera].accounting
        accounting.received(stamp_ns)
        limits = [rate for rate in (self.frame_rate_limit, self.thermal_rate_limit) if rate > 0]
        if limits and not self._limiter.admits(camera, stamp_ns, min(limits)):
            thermal = self.thermal_rate_limit > 0 and min(limits) == self.thermal_rate_limit
            accounting.dropped("thermal_limit" if thermal else "rate_limit")
            return
        if self._slots.put(camera, stamp_ns, (message, now)) is not None:
            accounting.dropped(SUPERSEDED)

    def skipped(self, count: int, camera: int = 0) -> None:
        """Count frames that were sent before the next one offered, and never taken."""
        self._cameras[camera].accounting.skipped(count)

    def lost(self, count: int, camera: int = 0, *, numbered: bool = True) -> None:
        """Note frames that the middleware lost on their way here; see FrameAccounting.lost."""
        self._cameras[camera].accounting.lost(count, numbered=numbered)
        self._log(
            camera,
            LOST,
            "frames lost on the way from the camera: large images need the DDS settings "
            "of config/fastdds_large_images.xml in the camera's process and in this one; small "
            "ones are lost where the computer is overloaded",
            self._logger.warning,
        )

    def offer_reference(self, message: Any, camera: int = 0) -> None:
        """Take a new reference image; it is extracted before the next frame is answered."""
        self._references[camera] = message

    def reference_waits(self, camera: int = 0) -> bool:
        """Return whether a reference came and is extracted before the next frame."""
        return self._references[camera] is not None

    def _run(self) -> None:
        while (items := self._slots.take()) is not None:
            with self._lock:
                self._in_work = set(items)
            try:
                self._answer(items)
            except BaseException as error:  # noqa: BLE001 - the node must outlive any one frame
                # SystemExit and KeyboardInterrupt too: raised in this thread they end nothing but
                # the thread, and a node whose frames nobody answers would look alive.
                with self._lock:
                    left = sorted(self._in_work)
                for camera in left:
                    self._refuse(camera, error)

    def _answer(self, items: dict[int, tuple[Any, float]]) -> None:
        taken: dict[int, _Taken] = {}
        for camera, (message, received) in items.items():
            try:
                taken[camera] = self._take(camera, message, received)
            except BaseException as error:  # noqa: BLE001 - as in _run; it is this frame's alone
                self._refuse(camera, error)
        if not taken:
            return
        self._session.limit_keypoints(self.keypoint_limit)
        frames = {camera: one.frame for camera, one in taken.items()}
        answers = self._session.process_together(frames)
        failed = [a for a in answers.values() if _is_the_engines(a)]
        if failed and not self._abandoned:
            self.failures_in_row += 1
            self.last_failure = f"{_reason(failed[0])}: {failed[0]}"
        elif any(isinstance(a, FrameResult) and "infer" in a.timings for a in answers.values()):
            self.failures_in_row = 0
        for camera, answer in answers.items():
            if isinstance(answer, FrameResult):
                continue
            self._refuse(camera, answer)
        for camera, answer in answers.items():
            if not isinstance(answer, FrameResult) or not self._inferred(camera):
                continue
            try:
                self._publish(camera, taken[camera], answer)
            except BaseException as error:  # noqa: BLE001 - as in _run; it is this frame's alone
                self._drop(camera, INTERNAL_ERROR, described(error))
                self._logger.debug(traced(error))

    def _take(self, camera: int, message: Any, received: float) -> _Taken:
        worked = self._cameras[camera]
        reference, self._references[camera] = self._references[camera], None
        if reference is not None:
            try:
                self._session.set_reference(worked.decode(reference), reference.header, camera)
            except GpsDeniedInferenceError as error:
                self._log(
                    camera, "reference", f"reference image refused, the old one stays: {error}"
                )
        begin = time.monotonic()
        image = worked.decode(message)
        frame = Frame(image, _stamp_ns(message), message.header)
        return _Taken(message, received, begin, time.monotonic(), frame)

    def _publish(self, camera: int, taken: _Taken, result: FrameResult) -> None:
        worked, stream = self._cameras[camera], self._session.streams[camera]
        if stream.reference_described != self._references_seen[camera]:
            self._references_seen[camera] = stream.reference_described
            self._logger.info(f"{_of(worked)}{stream.reference_described}")
        answered = time.monotonic()
        worked.publish(taken.frame.image, result, taken.message.header)
        published = time.monotonic()
        timings = {
            "wait": taken.taken - taken.received,
            "convert": taken.converted - taken.taken,
            **result.timings,
            "publish": published - answered,
            "end_to_end": published - taken.received,
        }
        worked.accounting.answered(timings, result.quality)
        if self.per_frame_debug_log:
            stages = " ".join(f"{name}={1e3 * value:.2f}ms" for name, value in timings.items())
            stamp = taken.message.header.stamp
            self._logger.debug(f"{_of(worked)}frame {stamp.sec}.{stamp.nanosec:09d}: {stages}")

    def _refuse(self, camera: int, error: BaseException) -> None:
        """Count and tell what kept a frame from being answered."""
        if not self._inferred(camera):
            return  # counted as hung
        known = isinstance(error, GpsDeniedInferenceError)
        self._drop(camera, _reason(error), str(error) if known else described(error))
        if not known:
            self._logger.debug(traced(error))

    def _drop(self, camera: int, reason: str, line: str) -> None:
        self._cameras[camera].accounting.dropped(reason)
        self._log(camera, reason, f"frame dropped ({reason}): {line}")

    def _log(
        self, camera: int, reason: str, line: str, say: Callable[[str], Any] | None = None
    ) -> None:
        now = time.monotonic()
        if now - self._logged.get((camera, reason), -ERROR_LOG_PERIOD) >= ERROR_LOG_PERIOD:
            self._logged[camera, reason] = now
            line = f"{_of(self._cameras[camera])}{line}"
            # One call site per severity: rclpy ties a line to the first severity it was used with.
            if say is None:
                self._logger.error(line)
            else:
                say(line)


def _is_the_engines(answer: object) -> TypeGuard[GpsDeniedInferenceError]:
    """Return whether an answer is an error of the engine, not of a frame."""
    return isinstance(answer, GpsDeniedInferenceError) and not isinstance(answer, FrameError)


def _reason(error: BaseException) -> str:
    """Return the drop reason of what kept a frame from being answered."""
    if isinstance(error, FrameError):
        return error.reason
    for kind, reason in (
        (DeviceOutOfMemoryError, OUT_OF_MEMORY),
        (InvalidOutputError, INVALID_OUTPUT),
        (GpsDeniedInferenceError, INFERENCE_ERROR),
    ):
        if isinstance(error, kind):
            return reason
    return INTERNAL_ERROR


def _of(camera: WorkedCamera) -> str:
    """Return what a line of the log begins with."""
    return f"camera '{camera.name}': " if camera.name else ""


def _stamp_ns(message: Any) -> int:
    stamp = message.header.stamp
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)

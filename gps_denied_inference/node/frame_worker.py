"""Takes the newest frame, answers it, publishes. One thread owns the engine while active."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any

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
from gps_denied_inference.pipeline.accounting import INFER_HUNG, LOST, SUPERSEDED, FrameAccounting
from gps_denied_inference.pipeline.slot import NewestSlot
from gps_denied_inference.runtimes.serial_thread import SerialThread
from gps_denied_inference.session import FrameResult, InferenceSession

Decode = Callable[[Any], npt.NDArray[np.uint8]]
Publish = Callable[[npt.NDArray[np.uint8], FrameResult, Header], None]

POLL_PERIOD = 0.05
"""s between looks at whether the frame in work still runs, while stopping."""

ERROR_LOG_PERIOD = 5.0
"""s, at most one line per reason in this time: a broken camera sends 30 bad frames a second."""


class RateLimiter:
    """Lets frames through at no more than a given mean rate."""

    def __init__(self) -> None:
        self._due = 0.0

    def admits(self, rate: float, now: float) -> bool:
        """True if a frame at ``now`` (monotonic s) keeps the rate (Hz); 0 = no limit."""
        if rate <= 0.0:
            return True
        period = 1.0 / rate
        # Up to one period of credit, so that a camera a little out of step with the limit is
        # not held to a divisor of its own rate.
        if now < self._due:
            return False
        self._due = max(self._due, now - period) + period
        return True


class FrameWorker:
    """Answers frames from a slot of one place.

    Args:
        session: an open session; only this worker's thread runs it.
        accounting: counts every frame in, out and dropped.
        decode: message to uint8 image; raises FrameError.
        publish: publishes one result; the header is the frame's.
        logger: an rclpy logger.
        thread: where frames are answered; busy with them from start to stop.
    """

    def __init__(
        self,
        session: InferenceSession,
        accounting: FrameAccounting,
        decode: Decode,
        publish: Publish,
        logger: Any,
        thread: SerialThread,
    ) -> None:
        self._session = session
        self._accounting = accounting
        self._decode = decode
        self._publish = publish
        self._logger = logger
        self._slot: NewestSlot[tuple[Any, float]] = NewestSlot()
        self._limiter = RateLimiter()
        self._reference: Any = None
        self._reference_seen = ""
        self._thread = thread
        self._ended: Future[None] | None = None
        self._logged: dict[str, float] = {}
        self._lock = threading.Lock()
        self._in_work = False
        self._abandoned = False
        self.failures_in_row = 0
        """Frames that the engine failed or answered with what cannot be, since its last answer."""
        self.last_failure = ""
        """The newest of them, in one line."""
        self.frame_rate_limit = 0.0
        """Hz, by parameter; 0 = none."""
        self.thermal_rate_limit = 0.0
        """Hz, by the thermal policy; 0 = none."""
        self.keypoint_limit = 0
        """By the thermal policy; 0 = none."""
        self.per_frame_debug_log = False
        self.reference_name = "topic"

    def start(self) -> None:
        """Start answering."""
        self._ended = self._thread.submit(self._run)

    def stop(self, hung: Callable[[float], bool]) -> Any:
        """Stop answering; return, once the frame in work is finished, a reference not yet used.

        Args:
            hung: told for how many seconds this waits; True: the forward pass will not come back.

        Raises:
            InferenceHungError: it said so; see :attr:`abandoned`.
        """
        if self._slot.close() is not None:
            self._accounting.dropped("deactivated")
        if self._ended is not None:
            begin = time.monotonic()
            while not wait([self._ended], POLL_PERIOD).done:
                if hung(time.monotonic() - begin) and self._abandon():
                    raise InferenceHungError("a forward pass does not come back")
            self._ended.result()
        return self._reference

    @property
    def thread_id(self) -> int:
        """Native id of the thread that answers."""
        return self._thread.native_id

    @property
    def abandoned(self) -> bool:
        """True where the thread is left to a forward pass that hangs: nothing may wait for it."""
        return self._abandoned

    def _abandon(self) -> bool:
        """Leave the thread to the frame in work; whatever that still gives is not published."""
        with self._lock:
            if self._in_work and not self._abandoned:
                self._abandoned = True
                self._accounting.dropped(INFER_HUNG)
            return self._abandoned

    def _inferred(self) -> bool:
        """Note that the frame in work came back; False where nobody waits for it any more."""
        with self._lock:
            self._in_work = False
            return not self._abandoned

    def offer(self, message: Any) -> None:
        """Take a frame from the subscription's thread. Never blocks, never raises."""
        now = time.monotonic()
        self._accounting.received(_stamp_ns(message))
        limits = [rate for rate in (self.frame_rate_limit, self.thermal_rate_limit) if rate > 0]
        if limits and not self._limiter.admits(min(limits), now):
            thermal = self.thermal_rate_limit > 0 and min(limits) == self.thermal_rate_limit
            self._accounting.dropped("thermal_limit" if thermal else "rate_limit")
            return
        displaced = self._slot.put((message, now))
        if displaced is not None:
            self._accounting.dropped(SUPERSEDED)

    def skipped(self, count: int) -> None:
        """Count frames that were sent before the next one offered, and never taken."""
        self._accounting.skipped(count)

    def lost(self, count: int, *, numbered: bool = True) -> None:
        """Note frames that the middleware lost on their way here; see FrameAccounting.lost."""
        self._accounting.lost(count, numbered=numbered)
        self._log(
            LOST,
            "frames lost on the way from the camera: large images need the DDS settings "
            "of config/fastdds_large_images.xml in the camera's process and in this one; small "
            "ones are lost where the computer is overloaded",
            self._logger.warning,
        )

    def offer_reference(self, message: Any) -> None:
        """Take a new reference image; it is extracted before the next frame is answered."""
        self._reference = message

    @property
    def reference_waits(self) -> bool:
        """True where a reference came and is extracted before the next frame."""
        return self._reference is not None

    def _run(self) -> None:
        while (item := self._slot.take()) is not None:
            message, received = item
            self._in_work = True
            try:
                self._answer(message, received)
            except FrameError as error:
                self._drop(error.reason, str(error))
            except DeviceOutOfMemoryError as error:
                self._fail("out_of_memory", str(error))
            except InvalidOutputError as error:
                self._fail("invalid_output", str(error))
            except GpsDeniedInferenceError as error:
                self._fail("inference_error", str(error))
            except BaseException as error:  # noqa: BLE001 - the node must outlive any one frame
                # SystemExit and KeyboardInterrupt too: raised in this thread they end nothing but
                # the thread, and a node whose frames nobody answers would look alive.
                self._drop("internal_error", described(error))
                self._logger.debug(traced(error))

    def _answer(self, message: Any, received: float) -> None:
        reference, self._reference = self._reference, None
        if reference is not None:
            try:
                self._session.set_reference(self._decode(reference), reference.header)
            except GpsDeniedInferenceError as error:
                self._log("reference", f"reference image refused, the old one stays: {error}")
        taken = time.monotonic()
        image = self._decode(message)
        converted = time.monotonic()
        stamp = message.header.stamp
        self._session.limit_keypoints(self.keypoint_limit)
        result = self._session.process(image, _stamp_ns(message), message.header)
        if not self._inferred():
            return
        if "infer" in result.timings:
            self.failures_in_row = 0
        if self._session.reference_described != self._reference_seen:
            self._reference_seen = self._session.reference_described
            self._logger.info(self._reference_seen)
        answered = time.monotonic()
        self._publish(image, result, message.header)
        published = time.monotonic()
        timings = {
            "wait": taken - received,
            "convert": converted - taken,
            **result.timings,
            "publish": published - answered,
            "end_to_end": published - received,
        }
        self._accounting.answered(timings, result.quality)
        if self.per_frame_debug_log:
            stages = " ".join(f"{name}={1e3 * value:.2f}ms" for name, value in timings.items())
            self._logger.debug(f"frame {stamp.sec}.{stamp.nanosec:09d}: {stages}")

    def _fail(self, reason: str, line: str) -> None:
        self.failures_in_row += 1
        self.last_failure = f"{reason}: {line}"
        self._drop(reason, line)

    def _drop(self, reason: str, line: str) -> None:
        if not self._inferred():
            return  # counted as hung
        self._accounting.dropped(reason)
        self._log(reason, f"frame dropped ({reason}): {line}")

    def _log(self, reason: str, line: str, say: Callable[[str], Any] | None = None) -> None:
        now = time.monotonic()
        if now - self._logged.get(reason, -ERROR_LOG_PERIOD) >= ERROR_LOG_PERIOD:
            self._logged[reason] = now
            # One call site per severity: rclpy ties a line to the first severity it was used with.
            if say is None:
                self._logger.error(line)
            else:
                say(line)


def _stamp_ns(message: Any) -> int:
    stamp = message.header.stamp
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)

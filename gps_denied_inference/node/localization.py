"""Positions on a map, beside the frames: a thread and engines of its own.

Threads: the frame worker's thread hands over each frame's tracks and publishes ``~/odometry``; the
searching thread takes the newest frame that is due, finds it on the map and publishes ``~/fix``,
``~/pose`` and ``~/localization_status``. Frames wait for neither.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from std_msgs.msg import Header

from gps_denied_inference.errors import GpsDeniedInferenceError, InferenceHungError
from gps_denied_inference.locator import Locator, optics_of, width_of
from gps_denied_inference.node import localization_messages as messages
from gps_denied_inference.node.frame_worker import POLL_PERIOD
from gps_denied_inference.node.localization_messages import LocalizationPublishers, Placed
from gps_denied_inference.node.priors import Priors
from gps_denied_inference.node.transitions import described, traced
from gps_denied_inference.pipeline.camera import CameraModel
from gps_denied_inference.pipeline.instants import RateLimiter
from gps_denied_inference.pipeline.localization.attitude import lean
from gps_denied_inference.pipeline.localization.course import Course, Seen
from gps_denied_inference.pipeline.localization.fix import Attempt
from gps_denied_inference.pipeline.localization.flight import FlightEstimate
from gps_denied_inference.pipeline.localization.plan import UNKNOWN_TILT
from gps_denied_inference.pipeline.localization.prior import Prior
from gps_denied_inference.pipeline.slot import NewestSlot
from gps_denied_inference.runtimes.contract import Progress
from gps_denied_inference.runtimes.memory import give_back_freed
from gps_denied_inference.runtimes.serial_thread import SerialThread
from gps_denied_inference.runtimes.stopwatch import scheduled
from gps_denied_inference.session import FrameResult
from gps_denied_inference.settings import SearchPriority, Settings

NICENESS = 10
"""Of the search: what computes features and tracks goes first."""
STARVED = 3.0
"""s that a search waits for a processor, from which it is told."""
PATIENCE = 1.0
"""s that ``stop`` waits for a search that gets no processor; then it may end by itself."""
MOST_TRACKS = 400
"""Tracks of a frame that tell its motion at most."""
MEMORY_PERIOD = 10.0
"""s after which what searches took and freed goes back to the system."""
LOG_PERIOD = 5.0
"""s between two lines on the same failure."""


@dataclass(frozen=True, eq=False)
class _Frame:
    image: npt.NDArray[np.uint8]
    header: Header
    stamp_ns: int
    camera: CameraModel | None


class Localization:
    """What task ``localize`` adds to the node; made in configure.

    Args:
        node: the lifecycle node.
        settings: of the node.
        progress: told what is being prepared.

    Raises:
        GpsDeniedInferenceError: map or engines cannot be had.
    """

    def __init__(self, node: Any, settings: Settings, progress: Progress) -> None:
        self._node = node
        self._settings = settings
        self._logger = node.get_logger()
        self._thread = SerialThread("localization")
        self._publishers: LocalizationPublishers | None = None
        self._priors: Priors | None = None
        self._locator: Locator | None = None
        self._slot: NewestSlot[_Frame] = NewestSlot()
        self._searched: _Frame | None = None
        self._ended: Future[None] | None = None
        self._left = threading.Event()
        self._limiter = RateLimiter()
        self._lock = threading.Lock()
        self._course: Course | None = None
        self._camera: CameraModel | None = None
        self._was_located = False
        self._jumps = 0
        self._frames = self._fixes = 0
        self._logged: dict[str, float] = {}
        try:
            self._thread.call(_yield_to_frames, "low")  # threads of its engines do as it does
            self._locator = self._thread.submit(Locator, settings, progress).result()
            self._publishers = LocalizationPublishers(node, settings)
            self._priors = Priors(node, settings, self._locator.info)
        except BaseException:
            self.destroy()
            raise
        store = self._locator.store
        self._logger.info(
            f"map {store.path.name}: {store.tile_count} tiles, content {store.sha256[:12]}"
        )

    # In the frame worker's thread -----------------------------------------------------------------

    def frame(
        self,
        image: npt.NDArray[np.uint8],
        result: FrameResult,
        header: Header,
        camera: CameraModel | None,
    ) -> None:
        """Take a frame that was answered: its motion now, its place when it is due."""
        if result.track is None or self._publishers is None or self._priors is None:
            return
        stamp_ns = header.stamp.sec * 1_000_000_000 + header.stamp.nanosec
        optics = optics_of(image, camera)
        course = self._course_for(optics.camera, width_of(optics))
        restarts = course.restarts
        estimate, _, seconds = course.moved(_seen(result, stamp_ns, optics.camera))
        if course.restarts > restarts and self._may_log("stamps"):
            self._logger.warning(
                "the stamps of the frames went back: the position is searched anew; is the "
                "camera's clock set, or do two publishers send on its topic?"
            )
        if estimate.state == "located" and not math.isnan(seconds):
            prior = self._priors.at(stamp_ns)
            placed = self._placed(estimate, prior)
            self._publishers.odometry(placed, header, stamp_ns)
        if self._limiter.admits(self._settings.fix_rate, time.monotonic()):
            self._slot.put(_Frame(image, header, stamp_ns, camera))

    def _course_for(self, camera: CameraModel, width: float) -> Course:
        """Return the flight; another lens begins another one."""
        same = self._camera is not None and (
            np.array_equal(self._camera.matrix, camera.matrix)
            and (self._camera.width, self._camera.height) == (camera.width, camera.height)
        )
        if self._course is None or not same:
            with self._lock:
                self._course, self._camera = Course(width), camera
        return self._course

    # In the searching thread --------------------------------------------------------------------

    def start(self) -> None:
        """Begin to search."""
        self._slot = NewestSlot()
        with self._lock:
            self._course = None  # a flight does not outlive a pause
        self._was_located = False
        self._left = threading.Event()
        self._ended = self._thread.submit(self._run, self._left)

    @property
    def running_since(self) -> float | None:
        """Monotonic s at which the search's forward pass that runs now began; None = none runs."""
        locator = self._locator
        return locator.running_since if locator is not None else None

    @property
    def thread_id(self) -> int:
        """Native id of the thread that searches."""
        return self._thread.native_id

    def stop(self, hung: Callable[[float], bool]) -> None:
        """Search no more; returns once the frame in work is done, or gets no processor.

        Args:
            hung: told for how many seconds this waits; True: the forward pass will not come back.

        Raises:
            InferenceHungError: it said so; thread and engines are left to it.
        """
        self._slot.close()
        ended, self._ended = self._ended, None
        begin, (_, ran) = time.monotonic(), scheduled(self.thread_id)
        while ended is not None and not wait([ended], POLL_PERIOD).done:
            waited, (runnable, runs) = time.monotonic() - begin, scheduled(self.thread_id)
            if hung(waited):
                self._leave()
                raise InferenceHungError("a search on the map does not come back")
            if runnable and waited - (runs - ran) >= PATIENCE:
                self._left.set()  # nobody wants its result; it ends once it gets a processor
                self._node.has_hung = True  # and the process does not wait for that
                return
        if ended is not None:
            ended.result()

    def _leave(self) -> None:
        """Leave thread and engines to a search that hangs; if it ever ends, both go."""
        if self._searched is not None:
            line = "a forward pass does not come back"
            self._report_failure(self._searched, "search_hung", line, self._left)
        locator, self._locator = self._locator, None
        if locator is not None:
            self._thread.submit(locator.close)
        self._thread.close(wait=False)
        self._node.has_hung = True

    def _run(self, left: threading.Event) -> None:
        _yield_to_frames(self._settings.localization_priority)
        given_back = time.monotonic()
        while (frame := self._slot.take()) is not None:
            self._searched = frame
            if time.monotonic() - given_back >= MEMORY_PERIOD:
                give_back_freed()
                given_back = time.monotonic()
            waited = _waited()
            try:
                self._search(frame, left)
            except GpsDeniedInferenceError as error:
                self._report_failure(frame, type(error).__name__, str(error), left)
            except BaseException as error:  # noqa: BLE001 - the next frame is another
                self._report_failure(frame, "internal_error", described(error), left)
                self._logger.debug(traced(error))
            if left.is_set():
                break
            self._tell_of_starving(_waited() - waited)
        self._searched = None

    def _tell_of_starving(self, waited: float) -> None:
        if waited >= STARVED and self._may_log("starved"):
            idle = self._settings.localization_priority == "idle"
            or_else = ", or set localization_priority to 'low'" if idle else ""
            self._logger.warning(
                f"a search on the map waited {waited:.0f} s for a processor: other programs leave "
                f"it none; give it one{or_else}"
            )

    def _search(self, frame: _Frame, left: threading.Event) -> None:
        with self._lock:
            course = self._course
        locator, priors, publishers = self._locator, self._priors, self._publishers
        if course is None or locator is None or priors is None or publishers is None:
            return
        base = priors.at(frame.stamp_ns)
        prior = course.search_from(frame.stamp_ns, base)
        attempt = locator.locate(frame.image, prior, frame.camera)
        if self._locator is not locator or left.is_set():
            return  # nobody waits for it any more
        estimate = course.found(attempt)
        self._frames += 1
        accepted = attempt.fix is not None and estimate.state == "located" and estimate.silent == 0
        if estimate.state == "located" and not self._was_located and self._fixes:
            self._jumps += 1  # found again: it may be anywhere
        self._was_located = estimate.state == "located"
        if accepted:
            self._fixes += 1
            self._publish_fix(attempt, estimate, base, frame)
        self._publish_status(attempt, estimate, accepted, frame)

    def _publish_fix(
        self, attempt: Attempt, estimate: FlightEstimate, base: Prior, frame: _Frame
    ) -> None:
        assert attempt.fix is not None
        assert self._publishers is not None
        assert self._locator is not None
        placed = messages.placed_fix(attempt.fix, base, UNKNOWN_TILT)
        self._publishers.fix(placed, self._locator.info, frame.header)
        self._publishers.pose(placed, frame.header, self._mounted)

    def _publish_status(
        self, attempt: Attempt, estimate: FlightEstimate, accepted: bool, frame: _Frame
    ) -> None:
        assert self._publishers is not None
        assert self._locator is not None
        reason = attempt.reason
        if not accepted and not reason:
            reason = "not_confirmed" if estimate.state != "located" else "off_course"
        now_ns = int(self._node.get_clock().now().nanoseconds)
        store = self._locator.store
        self._publishers.status(
            frame.header,
            state=messages.state_of(estimate, self._fixes > 0),
            fix_accepted=accepted,
            reason="" if accepted else reason,
            candidates=attempt.candidates,
            inliers=attempt.fix.inliers if attempt.fix is not None else 0,
            confidence=float(estimate.confidence) if accepted else math.nan,
            sigma=messages.worst_sigma(estimate.covariance),
            hypotheses=estimate.hypotheses,
            reset_counter=estimate.resets + self._jumps,
            frames=self._frames,
            fixes=self._fixes,
            processing_time=(now_ns - frame.stamp_ns) * 1e-9,
            map=store.path.name,
            map_sha256=store.sha256,
        )

    def _report_failure(self, frame: _Frame, kind: str, line: str, left: threading.Event) -> None:
        if self._locator is None or left.is_set():
            return  # left: nobody waits for it any more
        self._frames += 1
        if self._may_log(kind):
            self._logger.error(f"localization failed ({kind}): {line}")
        if self._publishers is not None:
            self._publishers.status(
                frame.header,
                state=messages.STATE_SEARCHING,
                reason=kind,
                confidence=math.nan,
                sigma=math.nan,
                frames=self._frames,
                fixes=self._fixes,
                reset_counter=self._jumps,
                processing_time=math.nan,
                map=self._locator.store.path.name,
                map_sha256=self._locator.store.sha256,
            )

    def _may_log(self, kind: str) -> bool:
        """Return whether a line of a kind is due, and note that it is written now."""
        now = time.monotonic()
        due = now - self._logged.get(kind, -LOG_PERIOD) >= LOG_PERIOD
        if due:
            self._logged[kind] = now
        return due

    @property
    def _mounted(self) -> npt.NDArray[np.float64]:
        assert self._priors is not None
        return np.asarray(self._priors.mounted, np.float64)

    def _placed(self, estimate: FlightEstimate, prior: Prior) -> Placed:
        """Return the camera's place of a flight that is located."""
        gravity = prior.gravity
        height = estimate.reach * max(float(gravity[2]), 1e-3) ** 1.5
        away = lean(estimate.heading, gravity, height)
        tilt = prior.down_sigma if prior.down_sigma is not None else UNKNOWN_TILT
        covariance = np.zeros((3, 3))
        covariance[:2, :2] = estimate.covariance + np.eye(2) * (height * math.tan(tilt)) ** 2
        covariance[2, 2] = (0.1 * height) ** 2
        return Placed(
            estimate.east - away.real, estimate.north - away.imag, height, covariance,
            estimate.heading, gravity, messages.ODOMETRY_HEADING_SIGMA, tilt,
            self._mounted,
        )  # fmt: skip

    def destroy(self) -> None:
        """Give everything back; nothing is searched any more (see :meth:`stop`)."""
        locator, self._locator = self._locator, None
        if locator is not None:
            closed = self._thread.submit(locator.close)
            if not self._left.is_set():
                closed.result()
        self._thread.close(wait=locator is not None and not self._left.is_set())
        priors, self._priors = self._priors, None
        if priors is not None:
            priors.destroy()
        publishers, self._publishers = self._publishers, None
        if publishers is not None:
            publishers.destroy()


def _yield_to_frames(priority: SearchPriority) -> None:
    """Lower the priority of this thread, and of those that it begins from now on."""
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        if priority == "idle":
            # Not by niceness alone: a thread that wakes up takes an idle one's processor at once.
            os.sched_setscheduler(threading.get_native_id(), os.SCHED_IDLE, os.sched_param(0))


def _waited() -> float:
    """Return the s that this thread was ready to run and had no processor; 0 where none tells."""
    try:
        folder = f"/proc/self/task/{threading.get_native_id()}"
        return int(Path(folder, "schedstat").read_text("ascii").split()[1]) * 1e-9
    except (OSError, ValueError, IndexError):
        return 0.0


def _seen(result: FrameResult, stamp_ns: int, camera: CameraModel) -> Seen:
    """Return the tracks that were there before this frame, on the normalised image plane."""
    features = result.features
    ids = features.track_ids
    assert ids is not None
    ages = features.track_ages
    old = np.flatnonzero(ages > 0) if ages is not None else np.arange(len(ids))
    new = np.flatnonzero(ages == 0) if ages is not None else old[:0]
    chosen = np.concatenate([old[:MOST_TRACKS], new[: max(0, MOST_TRACKS - len(old))]])
    points = camera.undistort(features.keypoints[chosen]) if len(chosen) else np.zeros((0, 2))
    return Seen.of(stamp_ns, ids[chosen], points)

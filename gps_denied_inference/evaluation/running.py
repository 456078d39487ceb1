"""The evaluation itself: every frame is searched, and held against the truth."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gps_denied_inference.errors import ConfigurationError
from gps_denied_inference.evaluation.frames import FrameRecord
from gps_denied_inference.evaluation.priors import PriorMaker, PriorOptions
from gps_denied_inference.images.choices import Color
from gps_denied_inference.images.files import read_image
from gps_denied_inference.pipeline.camera import CameraModel
from gps_denied_inference.pipeline.extractor import Extractor
from gps_denied_inference.pipeline.features import Features
from gps_denied_inference.pipeline.localization.fix import Attempt
from gps_denied_inference.pipeline.localization.flight import FlightEstimate, FlightFilter
from gps_denied_inference.pipeline.localization.flight_localizer import FlightLocalizer
from gps_denied_inference.pipeline.localization.localizer import FrameLocalizer
from gps_denied_inference.pipeline.localization.motion import Motion
from gps_denied_inference.pipeline.localization.plan import Optics
from gps_denied_inference.pipeline.localization.prior import Prior
from gps_denied_inference.pipeline.matcher import MutualNearestNeighbour

CALIBRATED = 0.005
"""Sigma, as a share, of a focal length that the user gives."""
FRAME_PERIOD = 5.0
"""s between frames that have no stamps: time enough to be lost where no motion is seen."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of one frame.

    Attributes:
        record: the frame and its truth.
        prior: what the search was told.
        optics: the lens that it was told.
        attempt: of the frame alone, or where the flight expected it.
        estimate: of the flight; None without the filter.
        seconds: for the whole frame.
    """

    record: FrameRecord
    prior: Prior
    optics: Optics
    attempt: Attempt
    estimate: FlightEstimate | None
    seconds: float

    @property
    def at(self) -> complex | None:
        """Where the axis meets the ground, as said: the flight's word where there is one."""
        if self.estimate is not None:
            return self.estimate.at if self.estimate.state == "located" else None
        return self.attempt.fix.at if self.attempt.fix is not None else None

    @property
    def covariance(self) -> npt.NDArray[np.float64] | None:
        """(2, 2) m^2 of it."""
        if self.at is None:
            return None
        if self.estimate is not None:
            return self.estimate.covariance
        assert self.attempt.fix is not None
        return self.attempt.fix.covariance

    @property
    def error(self) -> float | None:
        """M from the truth; None without either."""
        at = self.at
        return None if at is None or self.record.axis is None else abs(at - self.record.axis)

    @property
    def nees(self) -> float | None:
        """Normalised squared error: chi-square of two degrees of freedom if all is as said."""
        at, covariance = self.at, self.covariance
        if at is None or covariance is None or self.record.axis is None:
            return None
        off = at - self.record.axis
        vector = np.array([off.real, off.imag])
        return float(vector @ np.linalg.solve(covariance, vector))

    @property
    def camera_error(self) -> float | None:
        """M, horizontally, of the camera's own position; None where either is not known."""
        fix, record = self.attempt.fix, self.record
        if fix is None or fix.camera is None or record.camera is None or record.turn is None:
            return None
        return abs(complex(fix.camera[0], fix.camera[1]) - record.camera)


class Runner:
    """Evaluates frames one after the other.

    Args:
        localizer: on the map.
        extractor: that the localizer uses.
        color: that it takes.
        priors: how uncertain they are.
        lens: of all frames: calibrated, or a focal length, px; None takes each image's own tags,
            or assumes a drone's.
        use_filter: follow the flight.
        least_cosine: of neighbours in successive frames.
    """

    def __init__(
        self,
        localizer: FrameLocalizer,
        extractor: Extractor,
        color: Color,
        priors: PriorOptions,
        lens: CameraModel | float | None,
        use_filter: bool,
        least_cosine: float,
    ) -> None:
        self._localizer = localizer
        self._extractor = extractor
        self._color: Color = color
        self._priors = PriorMaker(priors)
        self._lens = lens
        self._use_filter = use_filter
        self._neighbours = MutualNearestNeighbour(min_cosine=least_cosine)
        self._flight: FlightLocalizer | None = None
        self._before: tuple[Features, Optics, float | None] | None = None

    def run(
        self, records: Sequence[FrameRecord], progress: Callable[[Outcome], None]
    ) -> list[Outcome]:
        """Evaluate frames.

        Raises:
            FrameError, StorageError: an image cannot be read.
            InputMismatchError, InferenceError, DeviceOutOfMemoryError: from the localizer.
        """
        outcomes = []
        for record in records:
            outcomes.append(self._one(record))
            progress(outcomes[-1])
        return outcomes

    def _one(self, record: FrameRecord) -> Outcome:
        image = read_image(record.path, self._color)
        prior = self._priors.of(record)
        optics = self._optics(image.shape[1], image.shape[0], record)
        begin = time.perf_counter()
        if not self._use_filter:
            attempt = self._localizer.locate(image, prior, optics)
            return Outcome(record, prior, optics, attempt, None, time.perf_counter() - begin)
        if self._flight is None:
            width = optics.camera.width / float(optics.camera.matrix[0, 0])
            self._flight = FlightLocalizer(self._localizer, FlightFilter(width))
        motion, seconds = self._motion(image, optics, record.stamp)
        attempt, estimate = self._flight.step(image, prior, optics, motion, seconds)
        return Outcome(record, prior, optics, attempt, estimate, time.perf_counter() - begin)

    def _motion(
        self, image: npt.NDArray[np.uint8], optics: Optics, stamp: float | None
    ) -> tuple[Motion | None, float]:
        features, before = self._extractor.extract(image), self._before
        self._before = (features, optics, stamp)
        if before is None:
            return None, 0.0
        matches = self._neighbours.match(features, before[0])
        motion = Motion.between(
            before[1].camera.undistort(matches.reference_points),
            optics.camera.undistort(matches.query_points),
        )
        known = stamp is not None and before[2] is not None and stamp > before[2]
        return motion, stamp - before[2] if known else FRAME_PERIOD  # type: ignore[operator]

    def _optics(self, width: int, height: int, record: FrameRecord) -> Optics:
        camera = self._lens
        if isinstance(camera, float):
            return Optics.of_focal(width, height, camera, CALIBRATED)
        if camera is not None:
            if (camera.width, camera.height) != (width, height):
                raise ConfigurationError(
                    f"{record.path} has {width} x {height} px, the camera was calibrated at "
                    f"{camera.width} x {camera.height}: give frames as the camera makes them"
                )
            return Optics(camera)
        if record.focal is not None:
            return Optics.of_focal(width, height, record.focal * max(width, height), 0.05)
        return Optics.assumed(width, height)

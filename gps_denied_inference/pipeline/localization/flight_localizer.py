"""Frame by frame: search where the flight is expected, weigh what is found, carry on."""

from __future__ import annotations

from gps_denied_inference.pipeline.localization.fix import Attempt
from gps_denied_inference.pipeline.localization.flight import FlightEstimate, FlightFilter
from gps_denied_inference.pipeline.localization.localizer import FrameLocalizer
from gps_denied_inference.pipeline.localization.motion import Motion
from gps_denied_inference.pipeline.localization.plan import Optics
from gps_denied_inference.pipeline.localization.prior import Prior
from gps_denied_inference.pipeline.localization.view import Image


class FlightLocalizer:
    """A localizer with memory. Not thread-safe.

    Args:
        localizer: of single frames.
        flight: its memory.
    """

    def __init__(self, localizer: FrameLocalizer, flight: FlightFilter) -> None:
        self._localizer = localizer
        self._flight = flight

    def step(
        self, frame: Image, prior: Prior, optics: Optics, motion: Motion | None, seconds: float
    ) -> tuple[Attempt, FlightEstimate]:
        """Go on by one frame.

        Args:
            frame: as the extractor takes it.
            prior: what is known besides the flight.
            optics: the lens.
            motion: since the frame before; None where it was not seen.
            seconds: since the frame before.

        Raises:
            InputMismatchError, FrameError, InferenceError, DeviceOutOfMemoryError: as
                :meth:`FrameLocalizer.locate`.
        """
        self._flight.move(motion, seconds)
        attempt = self._localizer.locate(frame, self._flight.search(prior), optics)
        self._flight.update(attempt)
        return attempt, self._flight.estimate

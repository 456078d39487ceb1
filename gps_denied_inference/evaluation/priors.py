"""What the localizer is told of a frame: the truth, as uncertain as asked."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gps_denied_inference.evaluation.frames import FrameRecord
from gps_denied_inference.pipeline.localization.prior import Prior, heading_and_gravity

MOST_SIGMAS = 2.5
"""No height or heading is further off: what a sensor's sigma says does not hold in the tails."""


@dataclass(frozen=True)
class PriorOptions:
    """How uncertain the priors are; None leaves one out.

    Attributes:
        position_sigma: m, along each axis.
        height_sigma: as a share of the height.
        heading_sigma: degrees.
        attitude_sigma: degrees, of the direction of gravity along each axis.
        seed: of the errors.
    """

    position_sigma: float | None = None
    height_sigma: float | None = 0.1
    heading_sigma: float | None = 5.0
    attitude_sigma: float | None = 0.1
    seed: int = 0


class PriorMaker:
    """Draws the priors of frames in turn: the same options give the same priors."""

    def __init__(self, options: PriorOptions) -> None:
        self._options = options
        self._random = np.random.default_rng(options.seed)

    def of(self, record: FrameRecord) -> Prior:
        """Return a frame's prior; what the frame does not know, nor does the prior."""
        options = self._options
        # Always drawn, so that one prior less does not change the others.
        east, north, height, heading, tilt_x, tilt_y = self._random.normal(size=6)
        height, heading = np.clip([height, heading], -MOST_SIGMAS, MOST_SIGMAS)
        known: dict[str, object] = {}
        place = record.camera if record.camera is not None else record.axis
        if options.position_sigma and place is not None:
            off = options.position_sigma * complex(east, north)
            known |= {
                "position": ((place + off).real, (place + off).imag),
                "position_sigma": options.position_sigma,
            }
        if options.height_sigma and record.height is not None:
            known |= {
                "height": record.height * math.exp(options.height_sigma * float(height)),
                "height_sigma": record.height * options.height_sigma,
            }
        if options.heading_sigma and record.heading is not None:
            sigma = math.radians(options.heading_sigma)
            known |= {"heading": record.heading + sigma * float(heading), "heading_sigma": sigma}
        if options.attitude_sigma and record.turn is not None:
            sigma = math.radians(options.attitude_sigma)
            _, gravity = heading_and_gravity(record.turn)
            off_x, off_y = sigma * float(tilt_x), sigma * float(tilt_y)
            down = gravity + np.cross([off_x, off_y, 0.0], gravity)
            known |= {"down": tuple(float(x) for x in down), "down_sigma": sigma}
        return Prior(**known)  # type: ignore[arg-type]

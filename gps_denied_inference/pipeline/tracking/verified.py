"""The motion between two frames: foreseen, or told by matches that geometry verifies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gps_denied_inference.pipeline import geometry as geo
from gps_denied_inference.pipeline.acceptance import MIN_CONFIDENCE
from gps_denied_inference.pipeline.features import Features
from gps_denied_inference.pipeline.geometry import GeometricModel
from gps_denied_inference.pipeline.matcher import Matcher, Matches, MutualNearestNeighbour
from gps_denied_inference.pipeline.tracking.flow import View
from gps_denied_inference.pipeline.tracking.following import CLEAR, foreseen
from gps_denied_inference.pipeline.tracking.frame import Frame
from gps_denied_inference.pipeline.tracking.motion import Motion
from gps_denied_inference.settings import GeometryModel

SAMPLE = 200
"""Features of a frame that tell how it moved, where a frame before is beyond doubt."""

SURE = 2.0 * MIN_CONFIDENCE
"""Confidence with which a sample needs no other pairs beside it, if :data:`CLEAR` agree."""

EFFORT = 1000
SAMPLE_EFFORT = 200
"""Samples that a search for the motion draws at most, among all pairs and among a sample's: frames
that cannot be tracked cost no more than others. Of pairs with three right ones in ten, a thousand
samples miss the motion once in three thousand frames."""


@dataclass(frozen=True)
class VerifiedMatcher:
    """Finds pairs and the model that verifies them.

    Attributes:
        matcher: finds pairs between two frames' features.
        model: what verifies them; "none" verifies nothing.
        threshold: px of the received image, greatest residual of a match.
    """

    matcher: Matcher
    model: GeometryModel
    threshold: float

    def foreseen(self, earlier: Frame, before: View, now: View, elapsed_ns: int) -> Motion | None:
        """Return the motion since an earlier frame where it goes on as it was; else None."""
        if self.model == "none" or earlier.step is None:
            return None
        step = earlier.step.lasting(elapsed_ns, self.model)
        if step is None:
            return None
        return foreseen(earlier.seen, step, self.model, before, now, self.threshold)

    def verify(self, matches: Matches, effort: int = EFFORT) -> GeometricModel | None:
        """Return the model that matches agree with, None where they agree with none."""
        if self.model == "none":
            return None
        return geo.verify(matches, self.model, self.threshold, effort=effort)

    def match(
        self, features: Features, earlier: Features, sampled: bool
    ) -> tuple[Matches, GeometricModel | None]:
        """Match to an earlier frame; return the pairs and what verified them.

        Args:
            sampled: only the motion is asked for, which a sample of the features tells where it
                leaves no doubt; else all are matched.
        """
        if sampled and isinstance(self.matcher, MutualNearestNeighbour):
            rows = np.arange(0, features.count, max(1, features.count // SAMPLE))
            matches = self.matcher.match_some(features, earlier, rows)
            model = self.verify(matches, SAMPLE_EFFORT)
            if model is not None and model.confidence > SURE and model.inlier_count > CLEAR:
                return matches, model
        matches = self.matcher.match(features, earlier)
        return matches, self.verify(matches)

"""Features of successive frames matched, and the matches held against the true motion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gps_denied_inference.demo.frame import FrameSource
from gps_denied_inference.models import zoo
from gps_denied_inference.pipeline.features import Features
from gps_denied_inference.pipeline.geometry import verify
from gps_denied_inference.pipeline.matcher import Matches, MutualNearestNeighbour

AGREEMENT = 3.0
"""px, farthest that a matched point may lie from where the true motion puts it."""

CONSISTENCY = 0.005
"""Share of the image's width, the same for footage whose true motion is not known, but at least
AGREEMENT: such frames are often larger than what the network sees, and their ground is not flat."""

_PICTURED_UP_TO = 24  # the pair that is drawn: the last one up to here


@dataclass(frozen=True)
class Pair:
    """Two successive frames.

    Attributes:
        index: of the first frame; the second is ``index + 1``.
        first, second: their features.
        matches: mutual nearest neighbours, query = first, reference = second.
        agrees: bool (M,), which of them agree with the motion.
    """

    index: int
    first: Features
    second: Features
    matches: Matches
    agrees: npt.NDArray[np.bool_]


def agreement(
    matches: Matches, truth: npt.NDArray[np.float64], threshold: float = AGREEMENT
) -> npt.NDArray[np.bool_]:
    """Return which matches end within ``threshold`` px of their true places (M, 2)."""
    residual = truth - matches.reference_points
    return np.asarray(np.hypot(residual[:, 0], residual[:, 1]) <= threshold, np.bool_)


class Score:
    """Takes answers in order and matches each with the answer of the frame right before it.

    Where the source knows the true motion, matches are held against it; elsewhere against the
    homography that most of them agree with, which says how consistent they are, not how true.
    """

    def __init__(self, source: FrameSource) -> None:
        self._source = source
        self._last: tuple[int, Features] | None = None
        self.counts: list[int] = []
        self.shares: list[float] = []
        self.pair: Pair | None = None
        self._matches = 0
        self._agreeing = 0
        # Matches, and those that agree: on the ground, and on what rises above it.
        self._by_surface = np.zeros((2, 2), np.int64)
        self._is_truth = True
        self._threshold = AGREEMENT

    def add(self, index: int, features: Features) -> None:
        """Take the answer to frame ``index``; indices rise, and may skip dropped frames."""
        self.counts.append(features.count)
        last, self._last = self._last, (index, features)
        if last is None or last[0] != index - 1:
            return
        nearest = MutualNearestNeighbour(zoo.get(features.model).min_cosine)
        matches = nearest.match(last[1], features)
        truth = self._source.move(index - 1, index, matches.query_points)
        if truth is not None:
            agrees = agreement(matches, truth)
            surfaces = self._source.surfaces(index - 1, matches.query_points)
            if surfaces is not None:
                for raised in (False, True):
                    there = (surfaces > 0) == raised
                    self._by_surface[int(raised)] += (np.count_nonzero(there), agrees[there].sum())
        else:
            self._is_truth = False
            self._threshold = max(AGREEMENT, CONSISTENCY * features.width)
            found = verify(matches, model="homography", threshold=self._threshold, seed=0)
            agrees = np.zeros(matches.count, np.bool_) if found is None else found.inliers
        self._matches += len(agrees)
        self._agreeing += int(agrees.sum())
        self.shares.append(float(agrees.mean()) if len(agrees) else 0.0)
        if self.pair is None or index <= _PICTURED_UP_TO:
            self.pair = Pair(index - 1, last[1], features, matches, agrees)

    @property
    def agreeing_share(self) -> float:
        """Share of all matches that agree, 0..1; NaN where there was no match."""
        return self._agreeing / self._matches if self._matches else float("nan")

    def _share_on(self, surface: int) -> float:
        count, agreeing = self._by_surface[surface]
        return float(agreeing / count) if count else float("nan")

    def summary(self) -> dict[str, object]:
        """Return the report's ``matches``."""
        return {
            "pairs": len(self.shares),
            "count": self._matches,
            "per_pair": self._matches / len(self.shares) if self.shares else float("nan"),
            "agreeing_share": self.agreeing_share,
            "agreeing_share_on_ground": self._share_on(0),
            "agreeing_share_on_roofs": self._share_on(1),
            "worst_pair_share": min(self.shares, default=float("nan")),
            "held_against": "true motion" if self._is_truth else "best homography",
            "threshold_px": self._threshold,
        }

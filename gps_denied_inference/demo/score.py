"""Features of successive frames matched, and the matches held against the true motion."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from gps_denied_inference.demo.frame import FrameSource
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


def transform(
    homography: npt.NDArray[np.float64], points: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """Return points (N, 2) in px moved by a homography (3, 3)."""
    if len(points) == 0:
        return np.zeros((0, 2))
    moved = cv2.perspectiveTransform(np.asarray(points, np.float64)[:, None, :], homography)
    return np.asarray(moved[:, 0, :], np.float64)


def agreement(
    matches: Matches, homography: npt.NDArray[np.float64], threshold: float = AGREEMENT
) -> npt.NDArray[np.bool_]:
    """Return which matches end within ``threshold`` px of where the homography puts them."""
    residual = transform(homography, matches.query_points) - matches.reference_points
    return np.asarray(np.hypot(residual[:, 0], residual[:, 1]) <= threshold, np.bool_)


class Score:
    """Takes answers in order and matches each with the answer of the frame right before it.

    Where the source knows the true motion, matches are held against it; elsewhere against the
    homography that most of them agree with, which says how consistent they are, not how true.
    """

    def __init__(self, source: FrameSource) -> None:
        self._source = source
        self._matcher = MutualNearestNeighbour()
        self._last: tuple[int, Features] | None = None
        self.counts: list[int] = []
        self.shares: list[float] = []
        self.pair: Pair | None = None
        self._matches = 0
        self._agreeing = 0
        self._is_truth = True
        self._threshold = AGREEMENT

    def add(self, index: int, features: Features) -> None:
        """Take the answer to frame ``index``; indices rise, and may skip dropped frames."""
        self.counts.append(features.count)
        last, self._last = self._last, (index, features)
        if last is None or last[0] != index - 1:
            return
        matches = self._matcher.match(last[1], features)
        motion = self._source.motion(index - 1, index)
        if motion is not None:
            agrees = agreement(matches, motion)
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

    def summary(self) -> dict[str, object]:
        """Return the report's ``matches``."""
        return {
            "pairs": len(self.shares),
            "count": self._matches,
            "per_pair": self._matches / len(self.shares) if self.shares else float("nan"),
            "agreeing_share": self.agreeing_share,
            "worst_pair_share": min(self.shares, default=float("nan")),
            "held_against": "true motion" if self._is_truth else "best homography",
            "threshold_px": self._threshold,
        }

"""A frame beside the key frame: the pairs that its tracks make, and when another one is due."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gps_denied_inference.pipeline import geometry as geo
from gps_denied_inference.pipeline.comparison import Comparison
from gps_denied_inference.pipeline.features import Features
from gps_denied_inference.pipeline.geometry import GeometricModel, Points
from gps_denied_inference.pipeline.matcher import Matches
from gps_denied_inference.pipeline.residuals import lengths
from gps_denied_inference.pipeline.tracking.following import CLEAR
from gps_denied_inference.pipeline.tracking.tracks import joined
from gps_denied_inference.settings import GeometryModel

Pairs = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]
"""Places of the same tracks among the features of a frame, and among those of the key frame."""


def compare(
    features: Features,
    keyframe: Features,
    pairs: Pairs,
    model: GeometryModel,
    threshold: float,
    start: Points | None,
    effort: int,
) -> tuple[Comparison, GeometricModel | None]:
    """Hold features beside those of the key frame.

    Args:
        pairs: of ``features`` and ``keyframe``.
        model, threshold, effort: of the verification; see :func:`geometry.verify`.
        start: (3, 3), about the matrix to expect; None = nothing is known of it.

    Returns:
        What is told of it on demand; and the model with which the tracker goes on, None where
        there is none. It is the same one whether anybody asks or not.
    """

    def join() -> Matches:
        return joined(features, keyframe, *pairs)

    if start is not None and model != "none":
        here = features.keypoints[pairs[0]].astype(np.float64)
        there = keyframe.keypoints[pairs[1]].astype(np.float64)
        improved = geo.improved(here, there, model, threshold, start)
        if improved is not None and improved.inlier_count >= CLEAR:
            found = improved
            return Comparison(join, lambda matches: geo.judged(matches, found, threshold)), found
    matches, verified = join(), None
    if model != "none":
        verified = geo.verify(matches, model, threshold, start=start, effort=effort)
    return Comparison.of(matches, verified), verified


def has_moved_on(
    features: Features,
    keyframe: Features,
    pairs: Pairs,
    model: GeometricModel | None,
    share: float,
    motion: float,
) -> bool:
    """Tell whether too little of the key frame is left, or it lies too far back.

    Args:
        pairs: of ``features`` and ``keyframe``.
        model: those that disagree with it do not count; None = all do.
        share: of the features, that must go on.
        motion: share of the image diagonal, by which the median pair may have moved.
    """
    here, there = pairs if model is None else (side[model.inliers] for side in pairs)
    if len(here) == 0 or len(here) < share * min(features.count, keyframe.count):
        return True
    way = lengths(features.keypoints[here] - keyframe.keypoints[there])
    half = len(way) // 2
    return bool(np.partition(way, half)[half] > motion * np.hypot(features.width, features.height))

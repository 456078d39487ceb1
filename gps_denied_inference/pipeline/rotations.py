"""Matching when the heading is unknown.

XFeat and ALIKED tell the same corner apart from itself turned by more than about thirty degrees. A
frame against a map, or two frames before and after a sharp turn, need more: the reference is seen
at several angles, once, and each query is matched with the angle that fits. The angle that fitted
last is tried first, so that a flight on one heading pays for one match per frame.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from gps_denied_inference.errors import InvalidParameterError
from gps_denied_inference.pipeline import geometry as geo
from gps_denied_inference.pipeline.features import Features
from gps_denied_inference.pipeline.geometry import GeometricModel
from gps_denied_inference.pipeline.matcher import Matches

Image = npt.NDArray[np.uint8]


class ExtractorLike(Protocol):
    """What turns an image into features."""

    def extract(self, image: Image) -> Features:
        """Extract features; keypoints in px of ``image``."""
        ...


class MatcherLike(Protocol):
    """What finds pairs between two sets of features."""

    def match(self, query: Features, reference: Features) -> Matches:
        """Match ``query`` against ``reference``."""
        ...


@dataclass(frozen=True, eq=False)
class RotatedReference:
    """One image's features, seen at several angles.

    Attributes:
        views: features per angle; keypoints in px of the upright image.
        all: the views joined, in their order: what ``reference_indices`` point into.
    """

    views: tuple[Features, ...]
    all: Features

    @classmethod
    def extract(cls, extractor: ExtractorLike, image: Image, angles: int = 8) -> RotatedReference:
        """See an image at ``angles`` equal steps of a full turn, upright first.

        The turned image keeps its size: corners that leave it are not seen at that angle.

        Args:
            extractor: called once per angle.
            image: uint8 (H, W) or (H, W, 3) RGB.
            angles: 1 (upright only) to 36.

        Raises:
            InvalidParameterError: ``angles`` out of bounds.
            FrameError, InferenceError, DeviceOutOfMemoryError: from the extractor.
        """
        if not 1 <= angles <= 36:
            raise InvalidParameterError("angles", angles, "in 1..36")
        views = [extractor.extract(image)]
        turned = [_extract_turned(extractor, image, 360.0 * i / angles) for i in range(1, angles)]
        # Turning averages the noise away: contrast is the upright image's, where points lie.
        views += [dataclasses.replace(view, contrast=views[0].contrast) for view in turned]
        return cls(tuple(views), _join(views))


class RotationMatcher:
    """Matches queries to a :class:`RotatedReference`.

    Args:
        matcher: matches the query with one view.
        model, threshold: what decides that a view fits, see ``geometry.verify``; the last angle
            keeps its place as long as ``enough`` pairs agree.
        enough: inliers with which no other angle is tried, but the nearest to the turn found.
    """

    def __init__(
        self, matcher: MatcherLike, model: str = "homography", threshold: float = 3.0,
        enough: int = 30,
    ) -> None:  # fmt: skip
        self._matcher = matcher
        self._model = model
        self._threshold = threshold
        self._enough = enough
        self._last = 0

    def match(
        self, query: Features, reference: RotatedReference
    ) -> tuple[Matches, GeometricModel | None]:
        """Return the pairs of the angle with most inliers, and the model that verified them.

        Without any verified angle, the pairs are those of the angle with most pairs.
        """
        best: tuple[Matches, GeometricModel | None] = (Matches.none(), None)
        best_rank = (-1, -1)
        waiting = sorted(range(len(reference.views)), key=lambda i: i != self._last)
        while waiting:
            index = waiting.pop(0)
            matches = self._matcher.match(query, reference.views[index])
            model = geo.verify(matches, self._model, self._threshold)
            inliers = 0 if model is None else model.inlier_count
            if (inliers, matches.count) > best_rank:
                best_rank = (inliers, matches.count)
                before = sum(view.count for view in reference.views[:index])
                moved = (matches.reference_indices + before).astype(np.int32)
                best = (dataclasses.replace(matches, reference_indices=moved), model)
                if inliers:
                    self._last = index
            if model is not None and inliers >= self._enough:
                # An angle next to the right one often fits too, only worse.
                nearest = _nearest_view(model, len(reference.views), index)
                waiting = [nearest] if nearest in waiting else []
        return best


def _nearest_view(model: GeometricModel, views: int, index: int) -> int:
    """Return the view whose angle is nearest to the turn that a homography says."""
    if model.type != "homography":
        return index
    # The model takes the query back by the angle that the view was turned by.
    turn = math.degrees(math.atan2(model.matrix[1, 0], model.matrix[0, 0]))
    return round(turn / 360.0 * views) % views


def _extract_turned(extractor: ExtractorLike, image: Image, angle: float) -> Features:
    height, width = image.shape[:2]
    centre = ((width - 1) / 2.0, (height - 1) / 2.0)
    turn = cv2.getRotationMatrix2D(centre, angle, 1.0)
    turned = cv2.warpAffine(image, turn, (width, height), flags=cv2.INTER_LINEAR)
    features = extractor.extract(np.asarray(turned, np.uint8))
    back = cv2.invertAffineTransform(turn)
    upright = features.keypoints @ back[:, :2].T + back[:, 2]
    # The border of the turned image is an edge that the scene does not have.
    margin = 8.0 * max(width / 640.0, 1.0)
    inside = (upright > margin) & (upright < (width - 1 - margin, height - 1 - margin))
    return _select(
        dataclasses.replace(features, keypoints=upright.astype(np.float32)), inside.all(axis=1)
    )


def _select(features: Features, keep: npt.NDArray[np.bool_]) -> Features:
    return dataclasses.replace(
        features,
        keypoints=features.keypoints[keep],
        scores=features.scores[keep],
        descriptors=features.descriptors[keep],
    )


def _join(views: Sequence[Features]) -> Features:
    return dataclasses.replace(
        views[0],
        keypoints=np.concatenate([v.keypoints for v in views]),
        scores=np.concatenate([v.scores for v in views]),
        descriptors=np.concatenate([v.descriptors for v in views]),
    )

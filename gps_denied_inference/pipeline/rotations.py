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
from gps_denied_inference.pipeline.acceptance import MIN_CONFIDENCE
from gps_denied_inference.pipeline.features import Features
from gps_denied_inference.pipeline.geometry import GeometricModel
from gps_denied_inference.pipeline.matcher import Matcher, Matches
from gps_denied_inference.settings import GeometryModel

Image = npt.NDArray[np.uint8]


class ExtractorLike(Protocol):
    """What turns an image into features."""

    def extract(self, image: Image) -> Features:
        """Extract features; keypoints in px of ``image``."""
        ...


@dataclass(frozen=True, eq=False)
class RotatedReference:
    """One image's features, seen at several angles, whole or tile by tile.

    Attributes:
        views: features per tile and angle, a tile's angles side by side, upright first; keypoints
            in px of the upright image.
        all: the views joined, in their order: what ``reference_indices`` point into.
        angles: views per tile, at equal steps of a full turn.
    """

    views: tuple[Features, ...]
    all: Features
    angles: int

    @classmethod
    def of(cls, views: Sequence[Features], angles: int) -> RotatedReference:
        """Join the views of one or more tiles."""
        return cls(tuple(views), _join(views), angles)

    def under(self, model: GeometricModel, query: Features, index: int) -> npt.NDArray[np.int64]:
        """Return which features of ``all`` lie where a homography places the query, best first.

        Those are of the tiles at the angle and scale of view ``index``; of a corner that several
        tiles show, one.
        """
        view, start, rows = self.views[index], 0, []
        for other, tile in enumerate(self.views):
            if other % self.angles == index % self.angles and tile.scale == view.scale:
                rows.append(np.arange(start, start + tile.count))
            start += tile.count
        chosen = np.concatenate(rows)
        points = self.all.keypoints[chosen].astype(np.float64)
        seen = geo.project(np.asarray(np.linalg.inv(model.matrix), np.float64), points)
        reach = 0.05 * max(query.width, query.height)
        inside = (seen >= -reach) & (seen <= (query.width + reach, query.height + reach))
        chosen = chosen[inside.all(axis=1)]
        chosen = chosen[np.argsort(-self.all.scores[chosen], kind="stable")]
        cells = np.round(self.all.keypoints[chosen] / (2.0 * view.scale)).astype(np.int64)
        _, first = np.unique(cells, axis=0, return_index=True)
        return np.asarray(chosen[np.sort(first)], np.int64)

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
        return cls.of(views, angles)


class RotationMatcher:
    """Matches queries to a :class:`RotatedReference`.

    Args:
        matcher: matches the query with one view.
        model, threshold: what decides that a view fits, see ``geometry.verify``; the last view
            keeps its place as long as ``enough`` pairs agree. With ``"none"``, the most pairs do.
        enough: inliers with which no other view is tried, but the tile's at the turn found.
    """

    def __init__(
        self, matcher: Matcher, model: GeometryModel = "homography", threshold: float = 3.0,
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
        """Return the pairs of the view with most inliers, and the model that verified them.

        Without any verified view, the pairs are those of the view with most pairs. Each view is a
        chance of its own to be wrong: what one view's model must be beyond chance grows with their
        number.
        """
        tries = math.log10(len(reference.views))
        best: tuple[Matches, GeometricModel | None] = (Matches.none(), None)
        best_rank = (-1, -1)
        waiting = sorted(range(len(reference.views)), key=lambda i: i != self._last)
        while waiting:
            index = waiting.pop(0)
            matches = self._matcher.match(query, reference.views[index])
            model = self._verify(matches, tries)
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
                nearest = _nearest_view(model, reference.angles, index)
                waiting = [nearest] if nearest in waiting else []
        return self._across_tiles(query, reference, *best, tries)

    def _across_tiles(
        self,
        query: Features,
        reference: RotatedReference,
        matches: Matches,
        model: GeometricModel | None,
        tries: float,
    ) -> tuple[Matches, GeometricModel | None]:
        """Match once more with all that lies under the query, whichever tiles it is of."""
        if len(reference.views) == reference.angles or model is None or model.type != "homography":
            return matches, model
        under = reference.under(model, query, self._last)
        found = self._matcher.match(query, _chosen(reference, under, self._last))
        again = self._verify(found, tries)
        if again is None or again.inlier_count <= model.inlier_count:
            return matches, model
        indices = under[found.reference_indices].astype(np.int32)
        return dataclasses.replace(found, reference_indices=indices), again

    def _verify(self, matches: Matches, tries: float) -> GeometricModel | None:
        """Verify one view's pairs, ``tries`` being log10 of the number of views."""
        if self._model == "none":
            return None
        model = geo.verify(matches, self._model, self._threshold)
        if model is None or tries == 0.0:
            return model
        model = dataclasses.replace(model, confidence=model.confidence - tries)
        return model if model.confidence >= MIN_CONFIDENCE else None


def _nearest_view(model: GeometricModel, angles: int, index: int) -> int:
    """Return the tile's view whose angle is nearest to the turn that a homography says."""
    if model.type != "homography":
        return index
    # The model takes the query back by the angle that the view was turned by.
    turn = math.degrees(math.atan2(model.matrix[1, 0], model.matrix[0, 0]))
    return index - index % angles + round(turn / 360.0 * angles) % angles


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


def _chosen(reference: RotatedReference, rows: npt.NDArray[np.int64], index: int) -> Features:
    view, whole = reference.views[index], reference.all
    return dataclasses.replace(
        view,
        keypoints=whole.keypoints[rows],
        scores=whole.scores[rows],
        descriptors=whole.descriptors[rows],
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

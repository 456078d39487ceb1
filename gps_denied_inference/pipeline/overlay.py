"""The debug image: what the pipeline saw, drawn on the frame."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from gps_denied_inference.pipeline.features import Features
from gps_denied_inference.pipeline.geometry import GeometricModel
from gps_denied_inference.pipeline.matcher import Matches

Image = npt.NDArray[np.uint8]

FEATURE = (255, 200, 0)
"""RGB of a feature without a track, or in its first frame."""
INLIER = (0, 220, 80)
OUTLIER = (230, 40, 40)
UNVERIFIED = (90, 160, 255)
OLD_AGE = 20
"""Frames after which a track is drawn in the colour of an old one."""
_SHIFT = 3  # cv2 draws to 1/8 px


def draw_overlay(
    image: Image,
    features: Features,
    matches: Matches | None = None,
    geometry: GeometricModel | None = None,
) -> Image:
    """Draw features, tracks and matches on a copy of the frame.

    Features are dots, yellow when new and turning violet with their track's age. Each match is a
    line from the feature to where its partner lies in the reference's own pixels: green where it
    agrees with ``geometry``, red where it does not, blue where nothing verified it.

    Args:
        image: uint8 (H, W) or (H, W, 3) RGB, the frame that the features are of.

    Returns:
        uint8 (H, W, 3) RGB.
    """
    canvas = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if image.ndim == 2 else image.copy()
    canvas = np.ascontiguousarray(canvas)
    thickness = max(1, round(image.shape[1] / 900))
    if matches is not None:
        start, end = _fixed(matches.query_points), _fixed(matches.reference_points)
        segments = np.stack([start, end], axis=1)
        if geometry is None:
            groups = [(UNVERIFIED, np.ones(matches.count, np.bool_))]
        else:
            groups = [(OUTLIER, ~geometry.inliers), (INLIER, geometry.inliers)]
        for colour, members in groups:
            lines = list(segments[members])
            cv2.polylines(canvas, lines, False, colour, thickness, cv2.LINE_AA, _SHIFT)
    radius = max(1, round(image.shape[1] / 400)) << _SHIFT
    colours = _age_colours(features)
    for point, colour in zip(_fixed(features.keypoints).tolist(), colours.tolist(), strict=True):
        cv2.circle(canvas, point, radius, colour, -1, cv2.LINE_AA, _SHIFT)
    caption = f"{features.count} features"
    if features.track_ages is not None:
        caption += f", {int(np.count_nonzero(features.track_ages))} tracked"
    if matches is not None:
        caption += f", {matches.count} matches"
    if geometry is not None:
        caption += f", {geometry.inlier_count} verified"
    _write(canvas, caption)
    return np.asarray(canvas, np.uint8)


def _fixed(points: npt.NDArray[np.floating]) -> npt.NDArray[np.int32]:
    """Return px as cv2's fixed-point integers, held near enough to the image not to overflow."""
    held = np.clip(np.nan_to_num(points), -1e5, 1e5)
    return np.asarray(np.rint(held * (1 << _SHIFT)), np.int32)


def _age_colours(features: Features) -> npt.NDArray[np.int64]:
    new, old = np.array(FEATURE), np.array((200, 60, 255))
    if features.track_ages is None:
        return np.tile(new, (features.count, 1))
    share = np.minimum(features.track_ages / OLD_AGE, 1.0)[:, None]
    return np.asarray(np.rint(new + share * (old - new)), np.int64)


def _write(canvas: npt.NDArray[np.generic], text: str) -> None:
    scale = max(0.4, canvas.shape[1] / 1600)
    at = (round(12 * scale), round(30 * scale))
    for colour, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        thickness = max(1, round(width * scale * 1.5))
        cv2.putText(
            canvas, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, thickness, cv2.LINE_AA
        )

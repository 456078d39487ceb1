"""The image behind a frame's features, and the motion that it shows by itself."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

from gps_denied_inference.pipeline.features import Features, FloatArray
from gps_denied_inference.pipeline.geometry import Points
from gps_denied_inference.pipeline.letterbox import Letterbox
from gps_denied_inference.pipeline.matcher import Matches

WINDOW = 15
"""px of the halved image, side of the patch."""

LEVELS = 2
"""Further halvings in which to look for points of which nothing is known."""

SMOOTHED = 0.8
"""px, by which an image is smoothed before patches are sampled from it."""

MOST_FOR_MOTION = 200
"""Points whose flow tells the frame's motion. The field they give places all others."""

_KERNEL = cv2.getGaussianKernel(5, SMOOTHED, cv2.CV_32F)

_STOP = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 10, 0.03)


@dataclass(frozen=True, eq=False)
class View:
    """The image that a frame's features come from.

    Attributes:
        grey: uint8 (H, W), no larger than flow needs: as large as the network sees the frame.
        scale: (2,) float64, px of ``grey`` per px of the received image, in x and y.
        room: most features that this frame may have, K.
    """

    grey: npt.NDArray[np.uint8]
    scale: npt.NDArray[np.float64]
    room: int

    @classmethod
    def of(cls, image: npt.NDArray[np.uint8], width: int, height: int, room: int) -> View:
        """Make it from a received image.

        Args:
            image: uint8 (H, W) or (H, W, 3) RGB.
            width, height: px, the engine's.
            room: K.
        """
        rows, columns = image.shape[:2]
        box = Letterbox.fit((columns, rows), (width, height))
        image = box.resize(image)
        if image.ndim == 3:
            image = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
        scale = np.array(box.content) / np.array(box.received)
        # A copy: the caller may fill its buffer with the next frame.
        return cls(np.array(image, order="C", copy=True), scale, room)

    @cached_property
    def smooth(self) -> FloatArray:
        """``grey`` smoothed, (H, W) float32: what patches are sampled from."""
        return np.asarray(cv2.sepFilter2D(self.grey, cv2.CV_32F, _KERNEL, _KERNEL), np.float32)

    @cached_property
    def half(self) -> npt.NDArray[np.uint8]:
        """``grey`` at half its size: where flow looks for points of which nothing is known."""
        return np.asarray(cv2.pyrDown(self.grey), np.uint8)

    def to_grey(self, points: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Bring points (N, 2) from px of the received image to px of ``grey``."""
        return ((points + 0.5) * self.scale - 0.5).astype(np.float32)

    @property
    def received_to_grey(self) -> npt.NDArray[np.float64]:
        """(3, 3), from px of the received image to px of ``grey``, as (x, y, 1)."""
        x, y = self.scale
        return np.array([[x, 0.0, 0.5 * x - 0.5], [0.0, y, 0.5 * y - 0.5], [0.0, 0.0, 1.0]])

    def to_received(self, points: npt.NDArray[np.floating]) -> Points:
        """Bring points (N, 2) from px of ``grey`` to px of the received image."""
        return (points.astype(np.float64) + 0.5) / self.scale - 0.5


def see_motion(before: View, now: View, features: Features) -> Matches:
    """Match points of one view with another view by flow alone.

    Neither the way back nor the patches are compared: these pairs are to be verified together.

    Args:
        features: of ``before``.

    Returns:
        Where up to :data:`MOST_FOR_MOTION` of them are in ``now`` (query) against where they were
        (reference); both indices say which they are; scores are 1.
    """
    step = max(1, -(-features.count // MOST_FOR_MOTION))
    # In order of falling score, every n-th lies anywhere in the image.
    indices = np.arange(0, features.count, step, dtype=np.int32)
    points = features.keypoints[indices].astype(np.float64)
    if before.grey.shape != now.grey.shape:
        indices, points = indices[:0], points[:0]
    # Pixels of pyrDown's lie on every second one.
    start = before.to_grey(points) * np.float32(0.5)
    found, ok = start, np.zeros(0, np.bool_)
    if len(start):
        found, valid, _ = cv2.calcOpticalFlowPyrLK(
            before.half, now.half, start, start.copy(), winSize=(WINDOW, WINDOW), maxLevel=LEVELS,
            criteria=_STOP,
        )  # fmt: skip
        found = found * np.float32(2.0)
        ok = np.asarray(valid[:, 0] > 0, np.bool_)
    indices = indices[ok]
    return Matches(
        indices,
        indices,
        np.ones(len(indices), np.float32),
        now.to_received(found[ok]).astype(np.float32),
        features.keypoints[indices],
        (features.width, features.height),
        (features.width, features.height),
        features.evident(features.keypoints[indices]),
        features.scale,
        features.scale,
    )

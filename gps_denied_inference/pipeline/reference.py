"""The reference image of task ``match``, seen at the scale at which the network sees the frames.

A network tells a corner from the same corner at about half or twice its size, no further. So the
reference is seen whole, as large as the engine takes it, and, where that is another scale than the
frames', once more at theirs: in tiles of the engine's size where it is larger than the engine.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from gps_denied_inference.errors import InvalidParameterError
from gps_denied_inference.pipeline.acceptance import BORDER
from gps_denied_inference.pipeline.contrast import Contrast
from gps_denied_inference.pipeline.extractor import Extractor
from gps_denied_inference.pipeline.features import Features
from gps_denied_inference.pipeline.letterbox import Letterbox
from gps_denied_inference.pipeline.rotations import Image, RotatedReference

MOST_TILES = 64
"""Tiles of one reference; each is matched while no place is known."""
SAME_SCALE = 1.25
"""Ratio of scales up to which one view does for both."""


@dataclass(frozen=True)
class _AtScale:
    """An extractor that sees images at one scale."""

    extractor: Extractor
    scale: float

    def extract(self, image: Image) -> Features:
        return self.extractor.extract(image, self.scale)


class Reference:
    """One reference image and its features at the scales that are needed.

    Args:
        extractor: makes the features.
        image: uint8 (H, W) or (H, W, 3) RGB.
        angles: headings at which it is seen, 1 to 36.
        scale: px that the network sees per px of ``image``; 0 = by itself, from the frames.

    Raises:
        InvalidParameterError: ``scale`` gives more than :data:`MOST_TILES` tiles.
        FrameError, InferenceError, DeviceOutOfMemoryError: from the extractor.
    """

    def __init__(
        self, extractor: Extractor, image: Image, angles: int = 1, scale: float = 0.0
    ) -> None:
        self._extractor = extractor
        self._image = image
        self._angles = angles
        self._size = (image.shape[1], image.shape[0])
        self._engine = (extractor.width, extractor.height)
        self._automatic = scale == 0.0
        self._frame_scale = 0.0
        self.short_by = 1.0
        """The frames' scale over the reached one, where that is smaller for want of tiles."""
        if not self._automatic:
            if (tiles := self._tiles(scale)) > MOST_TILES:
                raise InvalidParameterError(
                    "reference_scale",
                    scale,
                    f"one that needs at most {MOST_TILES} tiles of {self._shown(self._engine)} px "
                    f"for this reference of {self._shown(self._size)} px, not {tiles}",
                )
            self._views, seen = self._at(scale)
        else:
            whole = RotatedReference.extract(extractor, image, angles)
            self._views = self._whole = list(whole.views)
            seen = self._said(1.0 / whole.all.scale, 0)
        self._set(self._views, seen)

    def _set(self, views: list[Features], seen: str) -> None:
        self.described = f"reference of {self._shown(self._size)} px is seen {seen}"
        """How it is seen, in one line."""
        self.views = RotatedReference.of(views, self._angles)
        """Its features, per view and joined."""

    def fit(self, frame_scale: float) -> bool:
        """See the reference as frames are seen; True where that changed anything.

        Args:
            frame_scale: px that the network sees per px of a frame.
        """
        if not self._automatic or 0.98 < frame_scale / (self._frame_scale or math.inf) < 1.02:
            return False
        self._frame_scale = frame_scale
        whole_scale = 1.0 / self._whole[0].scale
        before = self.described
        views, seen = list(self._whole), self._said(whole_scale, 0)
        ratio, self.short_by = frame_scale / whole_scale, 1.0
        if not 1.0 / SAME_SCALE <= ratio <= SAME_SCALE:
            scale, reason = frame_scale, ", the frames' scale"
            while self._tiles(scale) > MOST_TILES:
                scale *= 0.98
                reason = (
                    f", short of the frames' scale of {frame_scale:.3g}, which needs more tiles "
                    f"than {MOST_TILES}: crop the reference, or set image_width and image_height "
                    "to larger ones"
                )
            self.short_by = frame_scale / scale
            more, said = self._at(scale)
            views += more
            seen += f", and {said}{reason}"
        self._set(views, seen)
        return self.described != before

    @staticmethod
    def _shown(size: tuple[int, int]) -> str:
        return f"{size[0]}x{size[1]}"

    def _said(self, scale: float, tiles: int) -> str:
        how = f"in {tiles} tiles of {self._shown(self._engine)} px" if tiles else "whole"
        return f"{how} at {scale:.3g} px per px"

    def _scaled(self, scale: float) -> tuple[int, int]:
        width, height = (max(1, round(side * scale)) for side in self._size)
        return width, height

    def _tiles(self, scale: float) -> int:
        columns, rows = (
            len(_starts(side, room))
            for side, room in zip(self._scaled(scale), self._engine, strict=True)
        )
        return columns * rows

    def _at(self, scale: float) -> tuple[list[Features], str]:
        """See the reference at ``scale``, which may need tiles."""
        tiles = self._tiles(scale)
        if tiles == 1:
            seen = RotatedReference.extract(
                _AtScale(self._extractor, scale), self._image, self._angles
            )
            return list(seen.views), self._said(1.0 / seen.all.scale, 0)
        scaled = self._scaled(scale)
        image = Letterbox(self._size, scaled, scaled).resize(self._image)
        contrast = Contrast(self._image, *scaled)
        views: list[Features] = []
        for top in _starts(scaled[1], self._engine[1]):
            for left in _starts(scaled[0], self._engine[0]):
                tile = image[top : top + self._engine[1], left : left + self._engine[0]]
                found = RotatedReference.extract(
                    _AtScale(self._extractor, 1.0), np.ascontiguousarray(tile), self._angles
                )
                views += [self._placed(view, (left, top), scaled, contrast) for view in found.views]
        return views, self._said(scale, tiles)

    def _placed(
        self,
        view: Features,
        corner: tuple[int, int],
        scaled: tuple[int, int],
        contrast: Contrast,
    ) -> Features:
        """Bring a tile's features to px of the reference, without those at edges it does not have.

        Tiles overlap by half: what is left out of one lies well inside another.
        """
        low = np.where(np.array(corner) > 0, BORDER, -np.inf)
        size = np.array([view.width, view.height])
        ends = np.array(corner) + size >= np.array(scaled)
        high = np.where(ends, np.inf, size - 1.0 - BORDER)
        keep = ((view.keypoints >= low) & (view.keypoints <= high)).all(axis=1)
        factor = np.array(scaled, np.float64) / np.array(self._size)
        points = (view.keypoints[keep] + np.array(corner) + 0.5) / factor - 0.5
        return dataclasses.replace(
            view,
            keypoints=points.astype(np.float32),
            scores=view.scores[keep],
            descriptors=view.descriptors[keep],
            width=self._size[0],
            height=self._size[1],
            scale=float(1.0 / factor.min()),
            contrast=contrast,
        )


def _starts(size: int, room: int) -> list[int]:
    """Return where tiles of ``room`` px begin along ``size`` px, overlapping by half or more."""
    if size <= room:
        return [0]
    count = math.ceil((size - room) / (room / 2)) + 1
    return [round(i * (size - room) / (count - 1)) for i in range(count)]

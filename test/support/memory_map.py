"""A map in memory, for tests of what searches maps: an image cut into overlapping tiles."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class MemoryTile:
    id: int
    east: float
    north: float
    gsd: float
    width: int
    height: int
    features: object


@dataclass(frozen=True)
class MemoryInfo:
    model: str
    model_sha256: str
    levels: tuple
    tile_px: int

    def to_geodetic(self, east, north):
        return north / 111_320.0, east / 111_320.0

    def to_enu(self, lat, lon):
        return lon * 111_320.0, lat * 111_320.0


class MemoryMap:
    """One level of tiles, each overlapping the next by half.

    Args:
        image: uint8 (H, W), north up.
        gsd: m/px of the image.
        extractor: of features.
        tile_px: side of a tile.
        level_gsd: m/px of the tiles, the image's own by default.
    """

    def __init__(self, image, gsd, extractor, tile_px, level_gsd=None):
        height, width = image.shape[:2]
        self.gsd, self.east, self.north = gsd, -width * gsd / 2.0, height * gsd / 2.0
        factor = gsd / (level_gsd or gsd)
        small = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        step = width * gsd / small.shape[1]
        self.tiles = []
        for y in _starts(small.shape[0], tile_px):
            for x in _starts(small.shape[1], tile_px):
                cut = np.ascontiguousarray(small[y : y + tile_px, x : x + tile_px])
                self.tiles.append(
                    MemoryTile(
                        len(self.tiles),
                        self.east + x * step,
                        self.north - y * step,
                        step,
                        cut.shape[1],
                        cut.shape[0],
                        extractor.extract(cut),
                    )
                )
        features = self.tiles[0].features
        self.info = MemoryInfo(features.model, features.model_sha256, (step,), tile_px)

    def at(self, x, y):
        """Map ENU of a pixel of the image, as one complex number."""
        return complex(self.east + (x + 0.5) * self.gsd, self.north - (y + 0.5) * self.gsd)

    def centres(self, level):
        side = [(t.width * t.gsd / 2.0, t.height * t.gsd / 2.0) for t in self.tiles]
        middle = [(t.east + w, t.north - h) for t, (w, h) in zip(self.tiles, side, strict=True)]
        return np.arange(len(self.tiles)), np.array(middle)

    def descriptors(self, level):
        """The mean of the features' descriptors: enough to tell tiles apart in tests."""
        return np.arange(len(self.tiles)), np.stack([describe(t.features) for t in self.tiles])

    def load(self, id):
        return self.tiles[id]


def describe(features):
    mean = features.descriptors.mean(axis=0)
    return mean / np.linalg.norm(mean)


def _starts(size, tile_px):
    count = max(1, int(np.ceil((size - tile_px) / (tile_px / 2.0))) + 1)
    return np.unique(np.linspace(0, max(0, size - tile_px), count).round().astype(int))

"""What localization asks of a map; ``gps_denied_inference.maps`` is the map on disk.

The map's frame is "map ENU": metres east and north of the map's centre.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from gps_denied_inference.pipeline.features import Features, FloatArray

Points = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]


class MapInfo(Protocol):
    """What holds for the whole map."""

    @property
    def model(self) -> str:
        """Name of the network that made the features."""
        ...

    @property
    def model_sha256(self) -> str:
        """Hex hash of that network."""
        ...

    @property
    def levels(self) -> Sequence[float]:
        """Ground sampling distance of each level, m/px."""
        ...

    @property
    def tile_px(self) -> int:
        """Width and height of a whole tile, px."""
        ...

    def to_geodetic(self, east: float, north: float) -> tuple[float, float]:
        """Return latitude and longitude, degrees WGS84."""
        ...

    def to_enu(self, lat: float, lon: float) -> tuple[float, float]:
        """Return east and north, m."""
        ...


class Tile(Protocol):
    """A north-up square of the map.

    Pixel (x, y) lies at east + (x + 0.5) gsd, north - (y + 0.5) gsd.
    """

    @property
    def id(self) -> int:
        """Unique in the map."""
        ...

    @property
    def east(self) -> float:
        """Of the outer corner of the top-left pixel, m."""
        ...

    @property
    def north(self) -> float:
        """Of the outer corner of the top-left pixel, m."""
        ...

    @property
    def gsd(self) -> float:
        """Ground sampling distance, m/px."""
        ...

    @property
    def width(self) -> int:
        """Width, px."""
        ...

    @property
    def height(self) -> int:
        """Height, px."""
        ...

    @property
    def features(self) -> Features:
        """Keypoints in px of the tile, (0, 0) at the centre of the top-left pixel."""
        ...


class TileSource(Protocol):
    """A map that can be searched."""

    @property
    def info(self) -> MapInfo:
        """What holds for the whole map."""
        ...

    def centres(self, level: int) -> tuple[Ids, Points]:
        """Return the ids (N,) of a level's tiles and their centres (N, 2), m east and north."""
        ...

    def descriptors(self, level: int) -> tuple[Ids, FloatArray]:
        """Return the ids (N,) of a level's tiles and their global descriptors (N, D), unit norm."""
        ...

    def load(self, id: int) -> Tile:
        """Return a tile with its features."""
        ...


def ground_points(tile: Tile, keypoints: npt.NDArray[np.floating]) -> Points:
    """Map px of a tile (N, 2) to map ENU (N, 2), m."""
    points = np.asarray(keypoints, np.float64)
    east = tile.east + (points[:, 0] + 0.5) * tile.gsd
    north = tile.north - (points[:, 1] + 0.5) * tile.gsd
    return np.column_stack([east, north])

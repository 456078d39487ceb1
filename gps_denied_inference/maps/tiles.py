"""A map and its tiles in memory."""

from __future__ import annotations

import bisect
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import overload

from gps_denied_inference.errors import InvalidParameterError
from gps_denied_inference.maps.frame import LocalFrame
from gps_denied_inference.pipeline.features import Features, FloatArray
from gps_denied_inference.runtimes.specs import IMAGE_SIDE_STEP

MAX_TILE_PX = 2048
"""Keypoints are stored in 1/32 px of 16 bits."""


@dataclass(frozen=True)
class MapInfo:
    """What holds for the whole map.

    Attributes:
        lat0, lon0: degrees, origin of the map's frame.
        model: name of the network that made the features.
        model_sha256: hex, of its weights or graph: frames have to be seen by the same.
        max_keypoints: K.
        levels: ground sampling distance of each level, m/px, ascending.
        tile_px: width and height of a tile, px.
        overlap: share of a tile that its neighbour shows too.
        color: ``"mono"`` or ``"rgb"``, what the network was shown.
        detection_threshold: of the network.
        source: file name or folder of the raster.
        source_sha256: hex, what tells this raster from another.
        crs: coordinate reference system of the source, as it names it.
        attribution: whom the map is owed to.
        west, south, east, north: m, bounds of the source in the map's frame.
    """

    lat0: float
    lon0: float
    model: str
    model_sha256: str
    max_keypoints: int
    levels: tuple[float, ...]
    tile_px: int
    overlap: float
    color: str
    detection_threshold: float
    source: str
    source_sha256: str
    crs: str
    attribution: str
    west: float
    south: float
    east: float
    north: float

    def __post_init__(self) -> None:
        for gsd in self.levels:
            if not (math.isfinite(gsd) and 1e-3 <= gsd <= 1e3):
                raise InvalidParameterError("gsd", gsd, "in 0.001..1000 m/px")
        if not self.levels or list(self.levels) != sorted(set(self.levels)):
            raise InvalidParameterError("gsd", self.levels, "one or more, each other, ascending")
        if not 64 <= self.tile_px <= MAX_TILE_PX or self.tile_px % IMAGE_SIDE_STEP:
            raise InvalidParameterError(
                "tile_px", self.tile_px, f"a multiple of {IMAGE_SIDE_STEP} in 64..{MAX_TILE_PX} px"
            )
        if not 0.0 <= self.overlap <= 0.75:
            raise InvalidParameterError("overlap", self.overlap, "in 0..0.75")
        bounds = (self.west, self.south, self.east, self.north)
        if not all(math.isfinite(x) for x in bounds):
            raise InvalidParameterError("bounds", bounds, "finite m")
        if self.west >= self.east or self.south >= self.north:
            raise InvalidParameterError("bounds", bounds, "west < east and south < north")

    @property
    def frame(self) -> LocalFrame:
        """The map's frame."""
        return LocalFrame(self.lat0, self.lon0)

    def to_geodetic(self, east: float, north: float) -> tuple[float, float]:
        """Return latitude and longitude, degrees WGS84."""
        return self.frame.to_geodetic(east, north)

    def to_enu(self, lat: float, lon: float) -> tuple[float, float]:
        """Return east and north, m."""
        return self.frame.to_enu(lat, lon)

    def to_json(self) -> str:
        """Return the one text that stands for this."""
        return json.dumps(asdict(self), sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> MapInfo:
        """Read what :meth:`to_json` wrote.

        Raises:
            ValueError, TypeError, KeyError, InvalidParameterError: it is something else.
        """
        values = json.loads(text)
        values["levels"] = tuple(values["levels"])
        return cls(**values)


@dataclass(frozen=True, eq=False)
class StoredTile:
    """A north-up square of the map.

    Pixel (x, y) lies at east + (x + 0.5) gsd, north - (y + 0.5) gsd.

    Attributes:
        id: unique in the map.
        level: index into ``MapInfo.levels``.
        row, column: from the north-west, at that level.
        east, north: m, of the outer corner of the top-left pixel.
        gsd: m/px.
        width, height: px.
        features: keypoints in px of the tile, (0, 0) at the centre of the top-left pixel.
        descriptor: (D,) float32 of unit norm, the tile as a whole.
    """

    id: int
    level: int
    row: int
    column: int
    east: float
    north: float
    gsd: float
    width: int
    height: int
    features: Features
    descriptor: FloatArray


@dataclass(frozen=True)
class Place:
    """Where a tile belongs, before anything is known of it.

    Attributes:
        id, level, row, column, east, north, gsd, size: as in :class:`StoredTile`; ``size`` is both
            its width and height, px.
    """

    id: int
    level: int
    row: int
    column: int
    east: float
    north: float
    gsd: float
    size: int


class Grid(Sequence[Place]):
    """Every place of a map's tiles, level by level, row by row; made when asked for.

    At each level the tiles cover the source's bounds; the outermost reach over them evenly.

    Args:
        info: of the map.
    """

    def __init__(self, info: MapInfo) -> None:
        self._info = info
        self._shapes = [self._shape(gsd) for gsd in info.levels]
        self._starts = [0]
        for rows, columns in self._shapes:
            self._starts.append(self._starts[-1] + rows * columns)

    def _shape(self, gsd: float) -> tuple[int, int]:
        info, side = self._info, self._info.tile_px * gsd
        step = side * (1.0 - info.overlap)
        columns, rows = (
            max(1, math.ceil((extent - side) / step - 1e-9) + 1)
            for extent in (info.east - info.west, info.north - info.south)
        )
        return rows, columns

    def __len__(self) -> int:
        return self._starts[-1]

    @overload
    def __getitem__(self, id: int) -> Place: ...

    @overload
    def __getitem__(self, id: slice) -> list[Place]: ...

    def __getitem__(self, id: int | slice) -> Place | list[Place]:
        if isinstance(id, slice):
            return [self[index] for index in range(*id.indices(len(self)))]
        if not 0 <= id < len(self):
            raise IndexError(id)
        level = bisect.bisect_right(self._starts, id) - 1
        info, gsd = self._info, self._info.levels[level]
        rows, columns = self._shapes[level]
        row, column = divmod(id - self._starts[level], columns)
        side = info.tile_px * gsd
        step = side * (1.0 - info.overlap)
        west = 0.5 * (info.west + info.east - side - (columns - 1) * step)
        north = 0.5 * (info.south + info.north + side + (rows - 1) * step)
        east, top = west + column * step, north - row * step
        return Place(id, level, row, column, east, top, gsd, info.tile_px)


def grid(info: MapInfo) -> Grid:
    """Return every place of a map's tiles."""
    return Grid(info)

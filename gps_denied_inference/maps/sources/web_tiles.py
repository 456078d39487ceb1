"""Web Mercator tiles: a folder z/x/y.png, an MBTiles file or another backend."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from gps_denied_inference.errors import FrameError, MapError, StorageError, one_line
from gps_denied_inference.images.compressed import decode_image
from gps_denied_inference.maps.frame import LocalFrame
from gps_denied_inference.maps.sources.gdal import fingerprint, load_rasterio
from gps_denied_inference.maps.sources.raster import Image, Mask
from gps_denied_inference.storage.files import read_regular

HALF_WORLD = 20_037_508.342789244
"""m, half the side of the square that Web Mercator maps the Earth to."""
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_CACHED = 64
_MAX_TILE_BYTES = 1 << 24
_MAX_TILE_PIXELS = 1 << 22
_WORLD = "EPSG:3857"


class Backend(Protocol):
    """Where the tiles lie."""

    name: str
    sha256: str
    attribution: str

    def index(self) -> dict[int, tuple[int, int, int, int]]:
        """Return for each zoom the least and greatest x and y, counted from the north-west."""
        ...

    def tile(self, zoom: int, x: int, y: int) -> bytes | None:
        """Return an encoded tile; None where there is none."""
        ...

    def close(self) -> None:
        """Give it back."""
        ...


class WebTiles:
    """See :class:`~.raster.Raster`.

    Args:
        backend: where the tiles lie.

    Raises:
        MapError: there are none.
    """

    crs = _WORLD

    def __init__(self, backend: Backend) -> None:
        self._rasterio = load_rasterio()
        self._backend = backend
        self.name, self.sha256 = backend.name, backend.sha256
        self.attribution = backend.attribution
        self._index = backend.index()
        if not self._index:
            raise MapError(f"{backend.name} holds no tiles z/x/y")
        self._deepest = max(self._index)
        first = self._decoded(self._deepest, *self._first())
        self._tile_px = 256 if first is None else int(first.shape[1])
        lat, _ = self.middle()
        self.native_gsd = self._gsd(self._deepest) * math.cos(math.radians(lat))

    def _first(self) -> tuple[int, int]:
        west, east, north, south = self._index[self._deepest]
        for x in range(west, east + 1):
            for y in range(north, south + 1):
                if self._backend.tile(self._deepest, x, y) is not None:
                    return x, y
        return west, north

    def _gsd(self, zoom: int) -> float:
        """m of Web Mercator per px."""
        return 2.0 * HALF_WORLD / (self._tile_px * 2.0**zoom)

    def _outline(self) -> tuple[float, float, float, float]:
        """Return west, south, east, north in Web Mercator."""
        west, east, north, south = self._index[self._deepest]
        side = 2.0 * HALF_WORLD / 2.0**self._deepest
        return (
            west * side - HALF_WORLD, HALF_WORLD - (south + 1) * side,
            (east + 1) * side - HALF_WORLD, HALF_WORLD - north * side,
        )  # fmt: skip

    def middle(self) -> tuple[float, float]:
        """Return latitude and longitude of its middle, degrees."""
        west, south, east, north = self._outline()
        (lon,), (lat,) = self._rasterio.warp.transform(
            _WORLD, "EPSG:4326", [0.5 * (west + east)], [0.5 * (south + north)]
        )
        return float(lat), float(lon)

    def bounds(self, frame: LocalFrame) -> tuple[float, float, float, float]:
        """Return west, south, east, north in a local frame, m."""
        found = self._rasterio.warp.transform_bounds(_WORLD, frame.proj, *self._outline())
        west, south, east, north = (float(value) for value in found)
        return west, south, east, north

    def read(
        self, frame: LocalFrame, east: float, north: float, size: int, gsd: float
    ) -> tuple[Image, Mask]:
        """Return a north-up square; see :class:`~.raster.Raster`."""
        rasterio, side = self._rasterio, size * gsd
        edges = rasterio.warp.transform_bounds(
            frame.proj, _WORLD, east, north - side, east + side, north
        )
        zoom = self._zoom_for(gsd * (edges[2] - edges[0]) / side)
        length = 2.0 * HALF_WORLD / 2.0**zoom
        x0, x1 = (math.floor((v + HALF_WORLD) / length) for v in (edges[0], edges[2]))
        y0, y1 = (math.floor((HALF_WORLD - v) / length) for v in (edges[3], edges[1]))
        px = self._tile_px
        mosaic = np.zeros((4, (y1 - y0 + 1) * px, (x1 - x0 + 1) * px), np.uint8)
        for x in range(x0, x1 + 1):
            for y in range(y0, y1 + 1):
                tile = self._decoded(zoom, x, y)
                if tile is not None and tile.shape[:2] == (px, px):
                    rows = slice((y - y0) * px, (y - y0 + 1) * px)
                    columns = slice((x - x0) * px, (x - x0 + 1) * px)
                    mosaic[:, rows, columns] = np.moveaxis(tile, 2, 0)
        step = length / px
        from_affine = rasterio.Affine(
            step, 0.0, x0 * length - HALF_WORLD, 0.0, -step, HALF_WORLD - y0 * length
        )
        view = np.zeros((4, size, size), np.uint8)
        rasterio.warp.reproject(
            mosaic, view, src_transform=from_affine, src_crs=_WORLD,
            dst_transform=rasterio.Affine(gsd, 0.0, east, 0.0, -gsd, north), dst_crs=frame.proj,
            resampling=rasterio.enums.Resampling.bilinear,
        )  # fmt: skip
        return np.ascontiguousarray(np.moveaxis(view[:3], 0, 2)), view[3] == 255

    def _zoom_for(self, wanted: float) -> int:
        """Return the coarsest zoom that is no coarser than wanted, m of Web Mercator per px."""
        fine = [zoom for zoom in self._index if self._gsd(zoom) <= wanted * 1.05]
        return min(fine) if fine else self._deepest

    @functools.lru_cache(maxsize=_CACHED)  # noqa: B019 - a raster lives as long as a preparation
    def _decoded(self, zoom: int, x: int, y: int) -> Image | None:
        """Return (H, W, 4): RGB, and 255 where it shows something."""
        data = self._backend.tile(zoom, x, y)
        if data is None:
            return None
        try:
            return _with_alpha(data)
        except FrameError as error:
            raise MapError(f"{self.name}: tile {zoom}/{x}/{y}: {error}") from error

    def close(self) -> None:
        """Give it back."""
        self._backend.close()


def _with_alpha(data: bytes) -> Image:
    """Decode a tile to RGB and whether it is half opaque at least, (H, W, 4), 0 or 255.

    Raises:
        FrameError: it cannot be decoded.
    """
    image = decode_image(data, "rgb", max_pixels=_MAX_TILE_PIXELS)
    alpha = np.full(image.shape[:2], 255, np.uint8)
    jpeg = data.startswith(b"\xff\xd8")  # has no alpha
    raw = None if jpeg else cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if raw is not None and raw.ndim == 3 and raw.shape[2] == 4:
        alpha[raw[..., 3] < np.iinfo(raw.dtype).max // 2] = 0
    return np.dstack([image, alpha])


class Folder:
    """Tiles z/x/y.png, .jpg or .webp, y counted from the north."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.attribution = ""
        self._path = path
        self._names = {
            (int(file.parent.parent.name), int(file.parent.name), int(file.stem)): file
            for file in sorted(path.glob("*/*/*"))
            if file.suffix.lower() in _SUFFIXES
            and all(part.isdigit() for part in (*file.parts[-3:-1], file.stem))
        }
        digest = hashlib.sha256()
        for key, file in sorted(self._names.items()):
            digest.update(f"{key} {file.stat().st_size}\n".encode())
        self.sha256 = digest.hexdigest()

    def index(self) -> dict[int, tuple[int, int, int, int]]:
        """See :class:`Backend`."""
        return _extents(self._names)

    def tile(self, zoom: int, x: int, y: int) -> bytes | None:
        """See :class:`Backend`."""
        file = self._names.get((zoom, x, y))
        if file is None:
            return None
        try:
            return read_regular(file, _MAX_TILE_BYTES)
        except StorageError as error:
            raise MapError(f"tile {zoom}/{x}/{y} is refused: {error}") from error

    def close(self) -> None:
        """See :class:`Backend`."""


def holds_mbtiles(path: Path) -> bool:
    """Tell whether an SQLite file is an MBTiles file."""
    try:
        with contextlib.closing(
            sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        ) as base:
            names = base.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
            return {"tiles", "metadata"} <= {row[0] for row in names}
    except sqlite3.DatabaseError as error:
        raise MapError(f"map source {path} is damaged: {one_line(error)}") from error


class MbTiles:
    """An MBTiles file (SQLite), rows counted from the south."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.sha256 = fingerprint(path)
        try:
            self._base = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
            rows = self._base.execute("SELECT name, value FROM metadata").fetchall()
        except sqlite3.DatabaseError as error:
            raise MapError(f"{path} is no MBTiles file: {one_line(error)}") from error
        self.attribution = str(dict(rows).get("attribution", ""))

    def index(self) -> dict[int, tuple[int, int, int, int]]:
        """See :class:`Backend`."""
        query = (
            "SELECT zoom_level, MIN(tile_column), MAX(tile_column), MIN(tile_row), MAX(tile_row) "
            "FROM tiles GROUP BY zoom_level"
        )
        return {
            zoom: (west, east, 2**zoom - 1 - top, 2**zoom - 1 - bottom)
            for zoom, west, east, bottom, top in self._base.execute(query)
        }

    def tile(self, zoom: int, x: int, y: int) -> bytes | None:
        """See :class:`Backend`."""
        query = (
            "SELECT tile_data FROM tiles WHERE zoom_level = ? AND tile_column = ? AND tile_row = ?"
        )
        row = self._base.execute(query, (zoom, x, 2**zoom - 1 - y)).fetchone()
        return None if row is None else bytes(row[0])

    def close(self) -> None:
        """See :class:`Backend`."""
        self._base.close()


def _extents(names: Iterable[tuple[int, int, int]]) -> dict[int, tuple[int, int, int, int]]:
    found: dict[int, tuple[int, int, int, int]] = {}
    for zoom, x, y in names:
        west, east, north, south = found.get(zoom, (x, x, y, y))
        found[zoom] = (min(west, x), max(east, x), min(north, y), max(south, y))
    return found

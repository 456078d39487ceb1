"""Rasters through rasterio (GDAL); the only module that imports it.

A GeoTIFF in any coordinate reference system is warped into the map's frame window by window, so
that no more of it is in memory than a tile needs.
"""

from __future__ import annotations

import hashlib
import math
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from gps_denied_inference.errors import ConfigurationError, MapError
from gps_denied_inference.maps.frame import LocalFrame
from gps_denied_inference.maps.sources.bands import Bands
from gps_denied_inference.maps.sources.raster import Image, Mask
from gps_denied_inference.storage.files import require_regular

_SAMPLE = 1 << 20
_EDGE_POINTS = 21


def load_rasterio() -> Any:
    """Import rasterio.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        import rasterio
        import rasterio.vrt
        import rasterio.warp
    except ImportError as error:
        raise ConfigurationError(
            f"preparing maps needs rasterio ({error}): python3 -m pip install rasterio"
        ) from error
    # A map is a file of the user's: nothing is fetched for it, and no sidecar is written.
    os.environ.setdefault("GDAL_DISABLE_READDIR_ON_OPEN", "EMPTY_DIR")
    os.environ.setdefault("GDAL_PAM_ENABLED", "NO")
    return rasterio


def open_dataset(path: Path) -> Any:
    """Open a local raster file.

    Raises:
        StorageError: it is no regular file.
        MapError: GDAL reads no raster in it.
    """
    rasterio = load_rasterio()
    require_regular(path)
    try:
        with warnings.catch_warnings():
            # That a plain image has no place is no news: its place is given otherwise, or refused.
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            return rasterio.open(path.resolve())
    except rasterio.errors.RasterioError as error:
        raise MapError(f"map source {path} is no raster that GDAL reads: {error}") from error


def fingerprint(path: Path, *further: str) -> str:
    """Return the hex hash of a file's size, of samples of it, and of what comes with it."""
    size = path.stat().st_size
    digest = hashlib.sha256(f"{size}".encode())
    with path.open("rb") as file:
        for offset in (0, max(0, size // 2 - _SAMPLE // 2), max(0, size - _SAMPLE)):
            file.seek(offset)
            digest.update(file.read(_SAMPLE))
    for text in further:
        digest.update(b"\0" + text.encode())
    return digest.hexdigest()


class GeoTiff:
    """A raster that says where it lies. See :class:`~.raster.Raster`.

    Args:
        path: of the file.

    Raises:
        MapError: no raster, or one without coordinate reference system.
    """

    def __init__(self, path: Path) -> None:
        self._rasterio = load_rasterio()
        self._data = open_dataset(path)
        if self._data.crs is None or self._data.transform.is_identity:
            self._data.close()
            raise MapError(
                f"{path} does not say where it lies: give --corners FILE, or --gsd-of-image with "
                "--origin LAT,LON"
            )
        try:
            self._bands = Bands(self._rasterio, self._data, path.name)
        except BaseException:
            self._data.close()
            raise
        self.name = path.name
        self.sha256 = fingerprint(path)
        self.crs = self._data.crs.to_string()
        self.attribution = str(
            self._data.tags().get("TIFFTAG_COPYRIGHT") or self._data.tags().get("COPYRIGHT") or ""
        )
        middle = LocalFrame(*self.middle())
        west, south, east, north = self._around_middle(middle)
        self.native_gsd = math.sqrt((east - west) * (north - south))
        self._warped: dict[tuple[str, float, float, float], Any] = {}

    def middle(self) -> tuple[float, float]:
        """Return latitude and longitude of its middle, degrees."""
        x, y = self._data.transform * (0.5 * self._data.width, 0.5 * self._data.height)
        (lon,), (lat,) = self._rasterio.warp.transform(self._data.crs, "EPSG:4326", [x], [y])
        return float(lat), float(lon)

    def bounds(self, frame: LocalFrame) -> tuple[float, float, float, float]:
        """Return west, south, east, north in a local frame, m."""
        steps = np.linspace(0.0, 1.0, _EDGE_POINTS)
        width, height = self._data.width, self._data.height
        edge = [(s * width, t) for t in (0.0, height) for s in steps]
        edge += [(s, t * height) for s in (0.0, width) for t in steps]
        xs, ys = zip(*(self._data.transform * point for point in edge), strict=True)
        east, north = self._rasterio.warp.transform(self._data.crs, frame.proj, xs, ys)
        return min(east), min(north), max(east), max(north)

    def _around_middle(self, frame: LocalFrame) -> tuple[float, float, float, float]:
        column, row = 0.5 * self._data.width, 0.5 * self._data.height
        corners = [(column + i - 0.5, row + j - 0.5) for i in (0, 1) for j in (0, 1)]
        xs, ys = zip(*(self._data.transform * point for point in corners), strict=True)
        east, north = self._rasterio.warp.transform(self._data.crs, frame.proj, xs, ys)
        return min(east), min(north), max(east), max(north)

    def read(
        self, frame: LocalFrame, east: float, north: float, size: int, gsd: float
    ) -> tuple[Image, Mask]:
        """Return a north-up square; see :class:`~.raster.Raster`."""
        rasterio = self._rasterio
        bands, enums = self._bands, rasterio.enums
        finer = bands.finer(size, gsd / self.native_gsd)
        side, step = size * finer, gsd / finer
        affine = rasterio.Affine(step, 0.0, east, 0.0, -step, north)
        average = gsd > 1.5 * self.native_gsd
        method = enums.Resampling.average if average else enums.Resampling.bilinear
        if bands.has_table:
            method = enums.Resampling.nearest
        opaque = self._data.nodata is None and enums.ColorInterp.alpha not in self._data.colorinterp
        try:
            with rasterio.vrt.WarpedVRT(
                self._data, crs=frame.proj, transform=affine, width=side, height=side,
                resampling=method, add_alpha=opaque, warp_mem_limit=64,
            ) as view:  # fmt: skip
                samples, valid = view.read(bands.indexes), view.dataset_mask()
        except rasterio.errors.RasterioError as error:
            raise MapError(f"{self.name} cannot be read there: {error}") from error
        return bands.colors(samples, valid, finer)

    def close(self) -> None:
        """Give the file back."""
        self._data.close()

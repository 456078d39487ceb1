"""Rasters through rasterio (GDAL); the only module that imports it.

A GeoTIFF in any coordinate reference system is warped into the map's frame window by window, so
that no more of it is in memory than a tile needs. An image without georeference gets one from the
places of its corners, or from its origin and ground sampling distance.
"""

from __future__ import annotations

import csv
import hashlib
import math
import os
import stat
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from gps_denied_inference.errors import ConfigurationError, MapError, StorageError
from gps_denied_inference.maps.frame import LocalFrame
from gps_denied_inference.maps.sources.raster import Image, Mask

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
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise StorageError(f"map source {path} is no regular file")
    except OSError as error:
        raise StorageError(f"cannot read map source {path}: {error.strerror}") from error
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
        affine = rasterio.Affine(gsd, 0.0, east, 0.0, -gsd, north)
        average = gsd > 1.5 * self.native_gsd
        method = rasterio.enums.Resampling.average if average else (
            rasterio.enums.Resampling.bilinear)  # fmt: skip
        try:
            with rasterio.vrt.WarpedVRT(
                self._data, crs=frame.proj, transform=affine, width=size, height=size,
                resampling=method, add_alpha=self._data.nodata is None,
                warp_mem_limit=64,
            ) as view:  # fmt: skip
                bands = min(3, self._data.count)
                pixels = view.read(list(range(1, bands + 1)))
                shown = view.dataset_mask() > 0
        except rasterio.errors.RasterioError as error:
            raise MapError(f"{self.name} cannot be read there: {error}") from error
        return _rgb(pixels), shown

    def close(self) -> None:
        """Give the file back."""
        self._data.close()


class PlacedImage:
    """An image whose corners' places are known. See :class:`~.raster.Raster`.

    Args:
        path: of the image.
        corners: latitude and longitude, degrees, of the outer corners of the top-left, top-right,
            bottom-right and bottom-left pixel.
        kind: how the places came, for ``crs``.
    """

    def __init__(
        self, path: Path, corners: list[tuple[float, float]], kind: str, attribution: str = ""
    ) -> None:
        self._rasterio = load_rasterio()
        self._data = open_dataset(path)
        self._corners = corners
        self.name = path.name
        self.sha256 = fingerprint(path, repr(corners))
        self.crs = kind
        self.attribution = attribution
        frame = LocalFrame(*self.middle())
        across = np.array([frame.to_enu(*corner) for corner in corners])
        width, height = self._data.width, self._data.height
        self.native_gsd = 0.25 * float(
            np.linalg.norm(across[1] - across[0]) / width
            + np.linalg.norm(across[2] - across[3]) / width
            + np.linalg.norm(across[3] - across[0]) / height
            + np.linalg.norm(across[2] - across[1]) / height
        )
        if not self.native_gsd > 0.0:
            raise MapError(f"the corners of {path} lie in one place")

    def middle(self) -> tuple[float, float]:
        """Return latitude and longitude of its middle, degrees."""
        lat, lon = np.mean(np.array(self._corners), axis=0)
        return float(lat), float(lon)

    def bounds(self, frame: LocalFrame) -> tuple[float, float, float, float]:
        """Return west, south, east, north in a local frame, m."""
        across = np.array([frame.to_enu(*corner) for corner in self._corners])
        (west, south), (east, north) = across.min(axis=0), across.max(axis=0)
        return float(west), float(south), float(east), float(north)

    def read(
        self, frame: LocalFrame, east: float, north: float, size: int, gsd: float
    ) -> tuple[Image, Mask]:
        """Return a north-up square; see :class:`~.raster.Raster`."""
        data, side = self._data, size * gsd
        to_px = self._pixels_of(frame)
        square = np.array(
            [[east, north], [east + side, north], [east + side, north - side], [east, north - side]]
        )
        outline = cv2.perspectiveTransform(square[None], to_px)[0]
        shrink = max(1.0, gsd / self.native_gsd)
        margin = 2.0 * shrink + 1.0
        low = np.maximum(np.floor(outline.min(axis=0) - margin), 0).astype(int)
        high = np.ceil(outline.max(axis=0) + margin).astype(int)
        high = np.minimum(high, (data.width, data.height))
        blank = np.zeros((size, size, 3), np.uint8), np.zeros((size, size), np.bool_)
        if (high - low < 2).any():
            return blank
        window = self._rasterio.windows.Window(*low, *(high - low))
        shape = np.maximum(np.rint((high - low) / shrink).astype(int), 2)
        method = self._rasterio.enums.Resampling.average if shrink > 1.5 else (
            self._rasterio.enums.Resampling.bilinear)  # fmt: skip
        bands = list(range(1, min(3, data.count) + 1))
        try:
            pixels = _rgb(
                data.read(bands, window=window, out_shape=(len(bands), shape[1], shape[0]),
                          resampling=method)
            )  # fmt: skip
        except self._rasterio.errors.RasterioError as error:
            raise MapError(f"{self.name} cannot be read there: {error}") from error
        # Both ends count from outer corners of pixels; cv2 counts from their centres.
        scale = shape / (high - low)
        into = np.array([[scale[0], 0, -low[0] * scale[0]], [0, scale[1], -low[1] * scale[1]],
                         [0, 0, 1.0]])  # fmt: skip
        from_view = np.array([[gsd, 0, east], [0, -gsd, north], [0, 0, 1.0]])
        half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1.0]])
        back = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1.0]])
        mapping = back @ into @ to_px @ from_view @ half
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        view = cv2.warpPerspective(pixels, mapping, (size, size), flags=flags,
                                   borderMode=cv2.BORDER_REPLICATE)  # fmt: skip
        whole = np.full(pixels.shape[:2], 255, np.uint8)
        shown = cv2.warpPerspective(whole, mapping, (size, size), flags=flags)
        return np.asarray(view, np.uint8), np.asarray(shown) == 255

    def _pixels_of(self, frame: LocalFrame) -> npt.NDArray[np.float64]:
        """Return the homography from the local frame, m, to px counted from the outer corner."""
        across = np.float32([frame.to_enu(*corner) for corner in self._corners])  # type: ignore[arg-type]
        width, height = self._data.width, self._data.height
        px = np.float32([[0, 0], [width, 0], [width, height], [0, height]])  # type: ignore[arg-type]
        return np.asarray(cv2.getPerspectiveTransform(across, px), np.float64)

    def close(self) -> None:
        """Give the file back."""
        self._data.close()


def read_corners(path: Path) -> list[tuple[float, float]]:
    """Read a table of corners with the columns corner (TL, TR, BL, BR), lon and lat.

    Returns:
        Latitude and longitude of the top-left, top-right, bottom-right and bottom-left corner.

    Raises:
        StorageError: it cannot be read.
        MapError: a corner is missing or no place.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = {row.get("corner", ""): row for row in csv.DictReader(file)}
        corners = [(float(rows[n]["lat"]), float(rows[n]["lon"])) for n in ("TL", "TR", "BR", "BL")]
    except OSError as error:
        raise StorageError(f"cannot read corners {path}: {error.strerror}") from error
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise MapError(
            f"{path} is no table of corners ({error}): it needs the columns corner, lon and lat "
            "and the rows TL, TR, BL and BR"
        ) from error
    if not all(abs(lat) <= 90.0 and math.isfinite(lon) for lat, lon in corners):
        raise MapError(f"{path}: a corner lies beyond the Earth")
    return corners


def corners_from_origin(
    width: int, height: int, gsd: float, origin: tuple[float, float]
) -> list[tuple[float, float]]:
    """Return the corners of a north-up image whose middle lies at ``origin`` (lat, lon)."""
    frame = LocalFrame(*origin)
    x, y = 0.5 * width * gsd, 0.5 * height * gsd
    return [frame.to_geodetic(*corner) for corner in ((-x, y), (x, y), (x, -y), (-x, -y))]


def _rgb(bands: npt.NDArray[Any]) -> Image:
    """Return (H, W, 3) uint8 of one to three bands (B, H, W) of any depth."""
    pixels = bands if bands.shape[0] == 3 else np.repeat(bands[:1], 3, axis=0)
    if pixels.dtype != np.uint8:
        low, high = np.percentile(pixels, (1.0, 99.0))
        span = max(float(high - low), 1e-9)
        pixels = np.clip((pixels.astype(np.float32) - low) * (255.0 / span), 0, 255)
    return np.ascontiguousarray(np.moveaxis(pixels, 0, 2).astype(np.uint8))

"""Which raster a user means."""

from __future__ import annotations

from pathlib import Path

from gps_denied_inference.errors import ConfigurationError, StorageError
from gps_denied_inference.maps.sources.gdal import (
    GeoTiff,
    PlacedImage,
    corners_from_origin,
    open_dataset,
    read_corners,
)
from gps_denied_inference.maps.sources.raster import Raster
from gps_denied_inference.maps.sources.web_tiles import Folder, MbTiles, PmTiles, WebTiles


def open_raster(
    path: Path,
    corners: Path | None = None,
    gsd: float | None = None,
    origin: tuple[float, float] | None = None,
) -> Raster:
    """Open a raster.

    Args:
        path: a GeoTIFF or another raster that GDAL reads, an MBTiles or PMTiles file, a folder of
            tiles z/x/y, or an image whose place the other arguments give.
        corners: table of the image's corners.
        gsd: m/px of an image that is north-up, with
        origin: latitude and longitude of its middle, degrees.

    Raises:
        ConfigurationError: arguments that do not go together.
        MapError, StorageError: it cannot be used.
    """
    if (gsd is None) != (origin is None):
        raise ConfigurationError("--gsd-of-image and --origin go together")
    if corners is not None and gsd is not None:
        raise ConfigurationError("--corners and --gsd-of-image exclude each other")
    if not path.exists():
        raise StorageError(f"no map source at {path}")
    if corners is not None:
        return PlacedImage(path, read_corners(corners), f"corners of {corners.name}")
    if gsd is not None and origin is not None:
        with open_dataset(path) as data:
            size = data.width, data.height
        return PlacedImage(path, corners_from_origin(*size, gsd, origin), f"north-up, {gsd:g} m/px")
    if path.is_dir():
        return WebTiles(Folder(path))
    if path.suffix.lower() == ".mbtiles":
        return WebTiles(MbTiles(path))
    if path.suffix.lower() == ".pmtiles":
        return WebTiles(PmTiles(path))
    return GeoTiff(path)

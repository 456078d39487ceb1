"""Which raster a user means."""

from __future__ import annotations

from pathlib import Path

from gps_denied_inference.errors import ConfigurationError, StorageError
from gps_denied_inference.maps.sources.gdal import GeoTiff, open_dataset
from gps_denied_inference.maps.sources.placed import PlacedImage, corners_from_origin, read_corners
from gps_denied_inference.maps.sources.pmtiles import PmTiles
from gps_denied_inference.maps.sources.raster import Raster
from gps_denied_inference.maps.sources.web_tiles import (
    Folder,
    MbTiles,
    WebTiles,
    holds_mbtiles,
)

_SQLITE = b"SQLite format 3\0"
_PMTILES = b"PMTiles"


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
        places = read_corners(corners, *_size(path))
        return PlacedImage(path, places, f"corners of {corners.name}")
    if gsd is not None and origin is not None:
        places = corners_from_origin(*_size(path), gsd, origin)
        return PlacedImage(path, places, f"north-up, {gsd:g} m/px")
    if path.is_dir():
        return WebTiles(Folder(path))
    beginning = _beginning(path)
    if beginning.startswith(_SQLITE) and holds_mbtiles(path):
        return WebTiles(MbTiles(path))
    if beginning.startswith(_PMTILES):
        return WebTiles(PmTiles(path))
    return GeoTiff(path)


def _size(path: Path) -> tuple[int, int]:
    with open_dataset(path) as data:
        return int(data.width), int(data.height)


def _beginning(path: Path) -> bytes:
    """Return a file's first bytes; they say what it is, whatever its name."""
    try:
        if not path.is_file():  # a pipe would not answer
            raise StorageError(f"map source {path} is no regular file")
        with path.open("rb") as file:
            return file.read(len(_SQLITE))
    except OSError as error:
        raise StorageError(f"cannot read map source {path}: {error.strerror}") from error

"""The map's frame: metres east and north of its origin."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

from gps_denied_inference.errors import InvalidParameterError
from gps_denied_inference.proj import between


@dataclass(frozen=True)
class LocalFrame:
    """Azimuthal equidistant projection about the origin, on WGS84.

    Attributes:
        lat0, lon0: degrees, of the origin.
    """

    lat0: float
    lon0: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lat0) and math.isfinite(self.lon0)) or abs(self.lat0) > 90.0:
            raise InvalidParameterError("origin", (self.lat0, self.lon0), "degrees on the Earth")

    @property
    def proj(self) -> str:
        """The projection, as PROJ writes it."""
        return (
            f"+proj=aeqd +lat_0={self.lat0!r} +lon_0={self.lon0!r} +datum=WGS84 +units=m +no_defs"
        )

    def to_enu(self, lat: float, lon: float) -> tuple[float, float]:
        """Return east and north, m."""
        east, north = _transformer(self.proj, "forward").transform(lon, lat)
        return float(east), float(north)

    def to_geodetic(self, east: float, north: float) -> tuple[float, float]:
        """Return latitude and longitude, degrees WGS84."""
        lon, lat = _transformer(self.proj, "inverse").transform(east, north)
        return float(lat), float(lon)


@functools.lru_cache(maxsize=16)
def _transformer(proj: str, direction: str) -> Any:
    pair = ("EPSG:4326", proj) if direction == "forward" else (proj, "EPSG:4326")
    return between(*pair, "maps")

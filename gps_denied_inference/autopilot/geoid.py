"""Height of the geoid (mean sea level) above the WGS84 ellipsoid, from PROJ's EGM96 grid.

PROJ reads the grid; Debian and Ubuntu bring it with the package ``proj-data``, other systems with
PROJ's own. Without it the heights above sea level are unknown, and are said to be.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

from gps_denied_inference import proj
from gps_denied_inference.errors import ConfigurationError
from gps_denied_inference.storage.files import user_path

GRID = "egm96_15.gtx"
FOLDERS = ("/usr/share/proj", "/usr/local/share/proj", "/opt/homebrew/share/proj")
"""Searched after what ``PROJ_DATA`` and ``PROJ_LIB`` name."""


def find_grid(file: str = "") -> Path | None:
    """Return the grid's path: the file that is named, else the first that is found, else None.

    Raises:
        ConfigurationError: the file that is named is not there.
    """
    if file:
        named = user_path(file, "geoid_grid")
        if not named.is_file():
            raise ConfigurationError(f"geoid_grid '{file}' is no file: give PROJ's {GRID}")
        return named
    named_folders = [
        folder
        for variable in ("PROJ_DATA", "PROJ_LIB")
        for folder in os.environ.get(variable, "").split(os.pathsep)
        if folder
    ]
    for folder in (*named_folders, *FOLDERS):
        candidate = Path(folder, GRID)
        if candidate.is_file():
            return candidate
    return None


class Geoid:
    """Undulations of one grid.

    Args:
        grid: EGM96 as PROJ's ``.gtx``.

    Raises:
        ConfigurationError: pyproj is not installed, or refuses the grid.
    """

    def __init__(self, grid: Path) -> None:
        try:
            self._transformer = proj.shifted_by_grid(str(grid), "heights above sea level")
        except ValueError as error:
            raise ConfigurationError(f"geoid_grid '{grid}' is no grid of PROJ: {error}") from error

    def undulation(self, latitude: float, longitude: float) -> float:
        """Return the geoid's height above the ellipsoid, m; NaN where the grid does not reach."""
        if not (math.isfinite(latitude) and math.isfinite(longitude)) or abs(latitude) > 90.0:
            return math.nan
        wrapped = (longitude + 180.0) % 360.0 - 180.0
        _, _, height = self._transformer.transform(wrapped, latitude, 0.0)
        return float(height) if math.isfinite(height) else math.nan

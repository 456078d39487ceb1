"""What preparation asks of a raster."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from gps_denied_inference.maps.frame import LocalFrame

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


class Raster(Protocol):
    """A georeferenced image of any size.

    Attributes:
        name: file or folder.
        sha256: hex, what tells it from another.
        crs: its coordinate reference system, as it names it.
        attribution: whom it is owed to, as far as it says.
        native_gsd: m/px near its middle.
    """

    name: str
    sha256: str
    crs: str
    attribution: str
    native_gsd: float

    def middle(self) -> tuple[float, float]:
        """Return latitude and longitude of its middle, degrees."""
        ...

    def bounds(self, frame: LocalFrame) -> tuple[float, float, float, float]:
        """Return west, south, east, north in a local frame, m."""
        ...

    def read(
        self, frame: LocalFrame, east: float, north: float, size: int, gsd: float
    ) -> tuple[Image, Mask]:
        """Return a north-up square.

        Args:
            frame: that ``east`` and ``north`` are in.
            east, north: m, of the outer corner of the top-left pixel.
            size: width and height, px.
            gsd: m/px.

        Returns:
            (size, size, 3) RGB, and (size, size) where it shows something.

        Raises:
            MapError: the raster cannot be read there.
        """
        ...

    def close(self) -> None:
        """Give it back."""
        ...

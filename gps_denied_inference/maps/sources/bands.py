"""What a raster's bands show: which are colours, what becomes black and white, colour tables."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from gps_denied_inference.errors import MapError
from gps_denied_inference.maps.sources.raster import Image, Mask

_SPREAD = 16
"""Windows along each side of a raster of which the brightness is measured."""
_WINDOW = 64
"""px, side of such a window."""
_PERCENTILES = (1.0, 99.0)
_FINER = 8
"""How much finer at most an image of a colour table is read than it is wanted."""
_MAX_SIDE = 4096
_OPAQUE = 128


class Bands:
    """Turns a raster's samples into colours, by one rule for the whole raster.

    8 bits stay as they are; other samples are stretched from their 1st to their 99th percentile
    over the whole raster, without what is no data.

    Args:
        rasterio: the library.
        data: open dataset.
        name: of the raster, for errors.

    Attributes:
        indexes: of the bands to read, counted from 1.
        has_table: the samples are indexes into a colour table and must not be averaged.

    Raises:
        MapError: the bands are no grey, red, green and blue, or colour table.
    """

    def __init__(self, rasterio: Any, data: Any, name: str) -> None:
        self._rasterio, self._data = rasterio, data
        self.indexes, self._table = self._chosen(name)
        self.has_table = self._table is not None
        kinds = [data.dtypes[band - 1] for band in self.indexes]
        if any(np.dtype(kind).kind not in "uif" for kind in kinds):
            raise MapError(f"{name} has samples of {kinds[0]}: a map needs real numbers")
        wide = not self.has_table and any(kind != "uint8" for kind in kinds)
        self._stretch = self._measured() if wide else None

    def _chosen(self, name: str) -> tuple[list[int], npt.NDArray[np.uint8] | None]:
        kind, meaning = self._rasterio.enums.ColorInterp, self._data.colorinterp
        named = {color: band for band, color in reversed(list(enumerate(meaning, 1)))}
        if all(color in named for color in (kind.red, kind.green, kind.blue)):
            return [named[kind.red], named[kind.green], named[kind.blue]], None
        if kind.palette in named:
            band = named[kind.palette]
            table = np.zeros((1 << 16, 4), np.uint8)
            for value, color in self._data.colormap(band).items():
                table[value] = color
            return [band], table
        if kind.gray in named:
            return [named[kind.gray]], None
        others = [band for band, color in enumerate(meaning, 1) if color is kind.undefined]
        if not others:
            found = ", ".join(color.name for color in meaning)
            raise MapError(f"{name} has bands {found}: a map needs red, green and blue, or grey")
        return others[:3] if len(others) >= 3 else others[:1], None

    def _measured(self) -> tuple[float, float]:
        data = self._data
        sides = [
            [(int(start), min(_WINDOW, length)) for start in
             np.unique(np.linspace(0, max(0, length - _WINDOW), _SPREAD).astype(int))]
            for length in (data.width, data.height)
        ]  # fmt: skip
        windows = [
            self._rasterio.windows.Window(x, y, width, height)
            for y, height in sides[1]
            for x, width in sides[0]
        ]
        found = [self._known(window=window) for window in windows]
        values = np.concatenate(found)
        if values.size == 0:  # what there is lies between the windows
            step = max(1, math.ceil(max(data.width, data.height) / 2048))
            shape = (len(self.indexes), max(1, data.height // step), max(1, data.width // step))
            values = self._known(out_shape=shape)
        if values.size == 0:
            return 0.0, 1.0
        low, high = np.percentile(values, _PERCENTILES)
        return float(low), float(max(high, low + 1e-9))

    def _known(self, **where: Any) -> npt.NDArray[np.float32]:
        try:
            samples = self._data.read(self.indexes, masked=True, **where)
        except self._rasterio.errors.RasterioError as error:
            raise MapError(f"{self._data.name} cannot be read: {error}") from error
        known: npt.NDArray[np.float32] = np.ma.masked_invalid(samples).compressed()
        return known.astype(np.float32)

    def finer(self, size: int, ratio: float) -> int:
        """Return how much finer indexes of a colour table are to be read than they are wanted.

        Args:
            size: px wanted along the longer side.
            ratio: px of the raster per px wanted.
        """
        if not self.has_table:
            return 1
        return max(1, min(_FINER, math.ceil(max(ratio, 1.5)), _MAX_SIDE // max(size, 1)))

    def colors(
        self, samples: npt.NDArray[Any], valid: npt.NDArray[np.uint8], finer: int = 1
    ) -> tuple[Image, Mask]:
        """Return colours, and where they are known.

        Args:
            samples: (B, H, W) of the bands :attr:`indexes`.
            valid: (H, W) opacity, 0..255.
            finer: both are to be averaged over squares of so many px.

        Returns:
            (H / finer, W / finer, 3) RGB, and (H / finer, W / finer).
        """
        if self._table is not None:
            table = self._table[samples[0].astype(np.int64)]
            image, valid = table[..., :3], np.minimum(valid, table[..., 3])
        else:
            known = np.isfinite(samples).all(axis=0)
            if self._stretch is not None:
                low, high = self._stretch
                scaled = (np.where(known, samples, low).astype(np.float32) - low) * 255.0
                samples = np.clip(np.rint(scaled / (high - low)), 0, 255).astype(np.uint8)
            valid = np.where(known, valid, 0)
            image = np.moveaxis(np.broadcast_to(samples, (3, *samples.shape[1:])), 0, 2)
        image = np.ascontiguousarray(image, np.uint8)
        if finer > 1:
            size = image.shape[1] // finer, image.shape[0] // finer
            image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
            valid = cv2.resize(valid, size, interpolation=cv2.INTER_AREA)
        return image, np.asarray(valid >= _OPAQUE)

"""Images that do not say where they lie: their place is given by points of them, or by origin and
ground sampling distance."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from gps_denied_inference.errors import MapError, StorageError
from gps_denied_inference.maps.frame import LocalFrame
from gps_denied_inference.maps.sources.bands import Bands
from gps_denied_inference.maps.sources.gdal import fingerprint, load_rasterio, open_dataset
from gps_denied_inference.maps.sources.raster import Image, Mask

Corners = list[tuple[float, float]]
"""Latitude and longitude, degrees, of the outer corners top-left, top-right, bottom-right,
bottom-left."""
_NAMES = ("TL", "TR", "BR", "BL")


class PlacedImage:
    """An image whose corners' places are known. See :class:`~.raster.Raster`.

    Args:
        path: of the image.
        corners: latitude and longitude, degrees, of the outer corners of the top-left, top-right,
            bottom-right and bottom-left pixel.
        kind: how the places came, for ``crs``.
    """

    def __init__(self, path: Path, corners: Corners, kind: str, attribution: str = "") -> None:
        self._rasterio = load_rasterio()
        self._data = open_dataset(path)
        try:
            self._bands = Bands(self._rasterio, self._data, path.name)
        except BaseException:
            self._data.close()
            raise
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
        sides = np.roll(across, -1, axis=0) - across
        following = np.roll(sides, -1, axis=0)
        turns = sides[:, 0] * following[:, 1] - sides[:, 1] * following[:, 0]
        if not (turns < -1e-9).all():
            self._data.close()
            raise MapError(
                f"the corners of {path} (TL, TR, BR, BL) do not go around an area clockwise: they "
                "are mixed up, or lie in one place"
            )

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
        bands, enums = self._bands, self._rasterio.enums
        method = enums.Resampling.average if shrink > 1.5 else enums.Resampling.bilinear
        if bands.has_table:
            method = enums.Resampling.nearest
        finer = bands.finer(int(shape.max()), float(((high - low) / shape).max()))
        out = (int(shape[1]) * finer, int(shape[0]) * finer)
        try:
            samples = data.read(
                bands.indexes, window=window, out_shape=(len(bands.indexes), *out),
                resampling=method,
            )  # fmt: skip
            valid = data.dataset_mask(window=window, out_shape=out)
        except self._rasterio.errors.RasterioError as error:
            raise MapError(f"{self.name} cannot be read there: {error}") from error
        pixels, known = bands.colors(samples, valid, finer)
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
        whole = np.where(known, 255, 0).astype(np.uint8)
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


def read_corners(path: Path, width: int, height: int) -> Corners:
    """Read the table of an image's corners, or of other points of it.

    With the columns ``px_x, px_y, lon, lat`` every row is a point of the image, (0, 0) px its outer
    top-left corner: three make an affine transform, four a homography, more the one that fits best.
    Without ``px_x`` and ``px_y`` the column ``corner`` names TL, TR, BL and BR.

    Args:
        path: of the table.
        width, height: px, of the image.

    Raises:
        StorageError: it cannot be read.
        MapError: it is no such table, or belongs to an image of another size.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            rows, columns = list(table), set(table.fieldnames or ())
        if {"px_x", "px_y"} <= columns:
            points = [[float(row[n]) for n in ("px_x", "px_y", "lat", "lon")] for row in rows]
        else:
            named = {row.get("corner", ""): row for row in rows}
            outer = [(0, 0), (width, 0), (width, height), (0, height)]
            points = [
                [*px, float(named[name]["lat"]), float(named[name]["lon"])]
                for px, name in zip(outer, _NAMES, strict=True)
            ]
    except OSError as error:
        raise StorageError(f"cannot read corners {path}: {error.strerror}") from error
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise MapError(
            f"{path} is no table of corners ({error}): it needs the columns lon and lat, with px_x "
            "and px_y or with corner (TL, TR, BL and BR)"
        ) from error
    return _outer_corners(path, np.array(points, np.float64).reshape(-1, 4), width, height)


def _outer_corners(path: Path, points: npt.NDArray[np.float64], width: int, height: int) -> Corners:
    if len(points) < 3 or not np.isfinite(points).all():
        raise MapError(f"{path} has {len(points)} points: it needs three or more, with numbers")
    if np.abs(points[:, 2]).max() > 90.0 or np.abs(points[:, 3]).max() > 360.0:
        raise MapError(f"{path}: a corner lies beyond the Earth")
    px = points[:, :2]
    if px.min() < -1.0 or (px.max(axis=0) > (width + 1.0, height + 1.0)).any():
        raise MapError(
            f"{path} has points up to px ({px[:, 0].max():g}, {px[:, 1].max():g}), the image has "
            f"{width} x {height}: it is the table of another image, or this one was scaled"
        )
    frame = LocalFrame(float(points[:, 2].mean()), float(points[:, 3].mean()))
    ground = np.array([frame.to_enu(lat, lon) for lat, lon in points[:, 2:]])
    matrix = _fitted(px, ground)
    if matrix is None:
        raise MapError(f"{path}: its points lie on one line, or do not fit one plane")
    outer = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
    places = cv2.perspectiveTransform(outer[None], matrix)[0]
    return [frame.to_geodetic(float(east), float(north)) for east, north in places]


def _fitted(
    px: npt.NDArray[np.float64], ground: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64] | None:
    """Return the homography from px to m."""
    rank = np.linalg.matrix_rank(px - px.mean(axis=0), tol=1.0)
    if rank < 2 or np.linalg.matrix_rank(ground - ground.mean(axis=0), tol=1e-3) < 2:
        return None
    if len(px) == 3:
        affine = np.linalg.solve(np.column_stack([px, np.ones(3)]), ground).T
        return np.vstack([affine, [0.0, 0.0, 1.0]])
    matrix, _ = cv2.findHomography(px, ground, 0)
    if matrix is None or not np.isfinite(matrix).all():
        return None
    return np.asarray(matrix, np.float64)


def corners_from_origin(
    width: int, height: int, gsd: float, origin: tuple[float, float]
) -> Corners:
    """Return the corners of a north-up image whose middle lies at ``origin`` (lat, lon)."""
    frame = LocalFrame(*origin)
    x, y = 0.5 * width * gsd, 0.5 * height * gsd
    return [frame.to_geodetic(*corner) for corner in ((-x, y), (x, y), (x, -y), (-x, -y))]

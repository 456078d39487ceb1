"""Rasters of one made-up scene in several coordinate reference systems and containers."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import rasterio
import rasterio.warp

from gps_denied_inference.maps.frame import LocalFrame

ORIGIN = (47.05, 8.31)
"""Latitude and longitude of the scene's middle."""
SIDE = 200.0
"""m, of the scene."""
SPOTS = [(-60.0, 40.0), (0.0, 0.0), (55.0, -70.0), (70.0, 65.0), (-75.0, -55.0)]
"""m east and north of the origin: centres of round spots, bright on dark."""


def frame() -> LocalFrame:
    return LocalFrame(*ORIGIN)


def scene(east: np.ndarray, north: np.ndarray) -> np.ndarray:
    """Brightness of the scene at places, m: a texture with corners, and round spots on it."""
    texture = 60 + 40 * np.sign(np.sin(east / 3.1) * np.sin(north / 2.7 + east / 40.0))
    for x, y in SPOTS:
        distance = np.hypot(east - x, north - y)
        texture = np.where(distance < 12.0, 20.0, texture)
        texture = texture + 220.0 * np.exp(-0.5 * (distance / 2.0) ** 2)
    return np.clip(texture, 1, 255)


def render(crs: str, affine: rasterio.Affine, width: int, height: int) -> np.ndarray:
    """Return the scene in a coordinate reference system, (H, W) uint8; 0 beyond its side."""
    rows, columns = np.mgrid[0:height, 0:width]
    xs = affine.a * (columns + 0.5) + affine.b * (rows + 0.5) + affine.c
    ys = affine.d * (columns + 0.5) + affine.e * (rows + 0.5) + affine.f
    east, north = rasterio.warp.transform(crs, frame().proj, xs.ravel(), ys.ravel())
    east, north = np.array(east).reshape(xs.shape), np.array(north).reshape(xs.shape)
    pixels = scene(east, north)
    beyond = (np.abs(east) > SIDE / 2) | (np.abs(north) > SIDE / 2)
    return np.where(beyond, 0, pixels).astype(np.uint8)


def affine_around(crs: str, gsd: float, turn: float = 0.0) -> tuple[rasterio.Affine, int, int]:
    """Return a raster's transform and size that holds the whole scene at about ``gsd`` m/px."""
    (x,), (y,) = rasterio.warp.transform("EPSG:4326", crs, [ORIGIN[1]], [ORIGIN[0]])
    east, north = rasterio.warp.transform(
        "EPSG:4326", crs, [ORIGIN[1], ORIGIN[1]], [ORIGIN[0], ORIGIN[0] + 1e-4]
    )
    unit = math.hypot(east[1] - east[0], north[1] - north[0]) / (1e-4 * 111_180.0)
    step = gsd * unit
    size = math.ceil(1.5 * SIDE / gsd)
    stretch = 1.0 / math.cos(math.radians(ORIGIN[0])) if crs == "EPSG:4326" else 1.0
    affine = (
        rasterio.Affine.translation(x, y)
        * rasterio.Affine.scale(stretch, 1.0)
        * rasterio.Affine.rotation(turn)
        * rasterio.Affine.scale(step, -step)
        * rasterio.Affine.translation(-size / 2, -size / 2)
    )
    return affine, size, size


def geotiff(path: Path, crs: str, turn: float = 0.0, gsd: float = 0.3) -> Path:
    affine, width, height = affine_around(crs, gsd, turn)
    pixels = render(crs, affine, width, height)
    with rasterio.open(path, "w", driver="GTiff", width=width, height=height, count=1,
                       dtype="uint8", crs=crs, transform=affine, nodata=0, tiled=True,
                       blockxsize=128, blockysize=128) as file:  # fmt: skip
        file.write(pixels, 1)
        file.update_tags(TIFFTAG_COPYRIGHT="made up")
    return path


def placed_image(path: Path, gsd: float = 0.3) -> tuple[Path, Path]:
    """An image turned by 20 degrees, and the table of its corners."""
    proj = frame().proj
    affine, width, height = affine_around(proj, gsd, turn=20.0)
    cv2.imwrite(str(path), render(proj, affine, width, height))
    corners = path.with_suffix(".csv")
    lines = ["corner,px_x,px_y,lon,lat"]
    for name, x, y in (("TL", 0, 0), ("TR", width, 0), ("BL", 0, height), ("BR", width, height)):
        lat, lon = frame().to_geodetic(*(affine * (x, y)))
        lines.append(f"{name},{x},{y},{lon!r},{lat!r}")
    corners.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path, corners


def web_tiles(keep: Callable[[int, int, int, bytes], None], zoom: int = 19) -> None:
    """Make the PNG tiles of the scene and hand each over as (zoom, x, y, data)."""
    length = 2.0 * 20_037_508.342789244 / 2.0**zoom
    half = 20_037_508.342789244
    reach = 0.75 * SIDE / math.cos(math.radians(ORIGIN[0]))
    (x,), (y,) = rasterio.warp.transform("EPSG:4326", "EPSG:3857", [ORIGIN[1]], [ORIGIN[0]])
    for column in range(int((x - reach + half) // length), int((x + reach + half) // length) + 1):
        for row in range(int((half - y - reach) // length), int((half - y + reach) // length) + 1):
            affine = rasterio.Affine(
                length / 256, 0, column * length - half, 0, -length / 256, half - row * length
            )
            done, data = cv2.imencode(".png", render("EPSG:3857", affine, 256, 256))
            assert done
            keep(zoom, column, row, data.tobytes())


def tile_folder(path: Path) -> Path:
    def keep(zoom: int, x: int, y: int, data: bytes) -> None:
        (path / str(zoom) / str(x)).mkdir(parents=True, exist_ok=True)
        (path / str(zoom) / str(x) / f"{y}.png").write_bytes(data)

    web_tiles(keep)
    return path


def mbtiles(path: Path) -> Path:
    base = sqlite3.connect(path)
    base.executescript(
        "CREATE TABLE metadata (name TEXT, value TEXT);"
        "CREATE TABLE tiles (zoom_level INT, tile_column INT, tile_row INT, tile_data BLOB);"
        "INSERT INTO metadata VALUES ('attribution', 'made up');"
    )
    web_tiles(
        lambda zoom, x, y, data: base.execute(
            "INSERT INTO tiles VALUES (?, ?, ?, ?)", (zoom, x, 2**zoom - 1 - y, data)
        )
    )
    base.commit()
    base.close()
    return path


def pmtiles(path: Path, bounds: str = "true") -> Path:
    """``bounds`` of the header: ``true``, ``zero`` or ``world``."""
    from pmtiles.tile import Compression, TileType, zxy_to_tileid
    from pmtiles.writer import Writer

    tiles: dict[int, bytes] = {}
    spans: list[tuple[int, int]] = []

    def keep(zoom: int, x: int, y: int, data: bytes) -> None:
        tiles[zxy_to_tileid(zoom, x, y)] = data
        spans.append((x, y))

    web_tiles(keep)
    zoom = 19
    xs, ys = zip(*spans, strict=True)

    def corner(x: int, y: int) -> tuple[int, int]:
        lon = x / 2**zoom * 360.0 - 180.0
        lat = math.degrees(math.atan(math.sinh(math.pi * (1 - 2 * y / 2**zoom))))
        return round(lon * 1e7), round(lat * 1e7)

    west, north = corner(min(xs), min(ys))
    east, south = corner(max(xs) + 1, max(ys) + 1)
    if bounds == "zero":
        west = south = east = north = 0
    elif bounds == "world":
        west, south, east, north = -1_800_000_000, -850_511_287, 1_800_000_000, 850_511_287
    with path.open("wb") as file:
        writer = Writer(file)
        for key in sorted(tiles):
            writer.write_tile(key, tiles[key])
        writer.finalize(
            {
                "tile_type": TileType.PNG, "tile_compression": Compression.NONE,
                "min_zoom": zoom, "max_zoom": zoom, "min_lon_e7": west, "min_lat_e7": south,
                "max_lon_e7": east, "max_lat_e7": north, "center_zoom": zoom,
                "center_lon_e7": (west + east) // 2, "center_lat_e7": (south + north) // 2,
            },
            {"attribution": "made up"},
        )  # fmt: skip
    return path

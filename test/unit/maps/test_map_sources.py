"""Every kind of raster puts the same scene at the same place, to a tenth of a pixel."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("rasterio", reason="rasterio is not installed")

import rasters

from gps_denied_inference.errors import ConfigurationError, MapError, StorageError
from gps_denied_inference.maps.sources.choose import open_raster
from gps_denied_inference.maps.sources.raster import Raster

GSD = 0.4
KINDS = [
    "utm", "geographic", "web_mercator", "rotated", "corners", "origin", "folder", "mbtiles",
    "pmtiles",
]  # fmt: skip


def opened(kind: str, folder: Path) -> Raster:
    if kind in ("utm", "geographic", "web_mercator", "rotated"):
        crs = {"utm": "EPSG:32632", "geographic": "EPSG:4326", "web_mercator": "EPSG:3857",
               "rotated": "EPSG:32632"}[kind]  # fmt: skip
        turn = 30.0 if kind == "rotated" else 0.0
        return open_raster(rasters.geotiff(folder / "map.tif", crs, turn))
    if kind == "corners":
        return open_raster(*rasters.placed_image(folder / "map.png"))
    if kind == "origin":
        affine, width, height = rasters.affine_around(rasters.frame().proj, 0.3)
        pixels = rasters.render(rasters.frame().proj, affine, width, height)
        assert cv2.imwrite(str(folder / "map.png"), pixels)
        return open_raster(folder / "map.png", gsd=0.3, origin=rasters.ORIGIN)
    if kind == "folder":
        return open_raster(rasters.tile_folder(folder / "tiles"))
    if kind == "mbtiles":
        return open_raster(rasters.mbtiles(folder / "map.mbtiles"))
    pytest.importorskip("pmtiles", reason="pmtiles is not installed")
    return open_raster(rasters.pmtiles(folder / "map.pmtiles"))


def spot(image: np.ndarray, x: float, y: float) -> tuple[float, float]:
    """Return the centre of the bright spot within 8 px of a place, px."""
    left, top = round(x) - 8, round(y) - 8
    patch = image[top : top + 17, left : left + 17].astype(float)
    weight = np.clip(patch - 100.0, 0, None)
    rows, columns = np.mgrid[0:17, 0:17]
    return left + (weight * columns).sum() / weight.sum(), top + (
        weight * rows
    ).sum() / weight.sum()


@pytest.mark.parametrize("kind", KINDS)
def test_the_scene_lies_where_it_should(kind: str, tmp_path: Path) -> None:
    raster = opened(kind, tmp_path)
    try:
        frame, size = rasters.frame(), 512
        west, north = -0.5 * size * GSD, 0.5 * size * GSD
        image, shown = raster.read(frame, west, north, size, GSD)
        assert image.shape == (size, size, 3)
        off = []
        for east_m, north_m in rasters.SPOTS:
            x = (east_m - west) / GSD - 0.5
            y = (north - north_m) / GSD - 0.5
            found = spot(image[..., 0], x, y)
            off.append(np.hypot(found[0] - x, found[1] - y))
            assert shown[round(y), round(x)]
        assert max(off) < 0.1
        assert raster.native_gsd == pytest.approx(0.3, rel=0.4)
        west_m, south_m, east_m, north_m = raster.bounds(frame)
        assert west_m < -90.0 < 90.0 < east_m
        assert south_m < -90.0 < 90.0 < north_m
        far, there = raster.read(frame, 5000.0, 5000.0, 64, GSD)
        assert not there.any()
        assert far.shape == (64, 64, 3)
    finally:
        raster.close()


@pytest.mark.parametrize("kind", ["utm", "corners", "mbtiles"])
def test_coarser_levels_are_averaged_and_not_moved(kind: str, tmp_path: Path) -> None:
    raster = opened(kind, tmp_path)
    try:
        size, gsd = 128, 1.6
        image, _ = raster.read(rasters.frame(), -102.4, 102.4, size, gsd)
        grid = (np.arange(size * 8) + 0.5) * gsd / 8
        fine = rasters.scene(*np.meshgrid(grid - 102.4, 102.4 - grid))
        truth = fine.reshape(size, 8, size, 8).mean(axis=(1, 3))
        inside = slice(8, -8)
        moved = [
            np.corrcoef(
                np.roll(image[..., 0], (dy, dx), (0, 1))[inside, inside].ravel(),
                truth[inside, inside].ravel(),
            )[0, 1]
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
        ]
        assert int(np.argmax(moved)) == 4
        assert moved[4] > 0.8
    finally:
        raster.close()


def test_sources_that_are_none_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no map source"):
        open_raster(tmp_path / "absent.tif")
    (tmp_path / "text.tif").write_text("no raster")
    with pytest.raises(MapError, match="no raster that GDAL reads"):
        open_raster(tmp_path / "text.tif")
    assert cv2.imwrite(str(tmp_path / "plain.png"), np.zeros((8, 8), np.uint8))
    with pytest.raises(MapError, match="does not say where it lies"):
        open_raster(tmp_path / "plain.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MapError, match="holds no tiles"):
        open_raster(tmp_path / "empty")
    (tmp_path / "no.mbtiles").write_text("no database at all, nor anything else" * 50)
    with pytest.raises(MapError, match="no raster that GDAL reads"):
        open_raster(tmp_path / "no.mbtiles")
    with pytest.raises(ConfigurationError, match="go together"):
        open_raster(tmp_path / "plain.png", gsd=1.0)
    (tmp_path / "corners.csv").write_text("corner,lon,lat\nTL,1,2\n")
    with pytest.raises(MapError, match="no table of corners"):
        open_raster(tmp_path / "plain.png", corners=tmp_path / "corners.csv")

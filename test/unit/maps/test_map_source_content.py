"""What rasters show: transparency, colour tables, 16 bits, names and tables that mislead."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("rasterio", reason="rasterio is not installed")

import rasterio
import rasters

from gps_denied_inference.errors import MapError
from gps_denied_inference.maps.sources.choose import open_raster
from gps_denied_inference.maps.sources.raster import Raster

GSD, SIZE = 0.4, 512
WEST, NORTH = -0.5 * SIZE * GSD, 0.5 * SIZE * GSD
CRS = "EPSG:32632"


def view(raster: Raster) -> tuple[np.ndarray, np.ndarray]:
    try:
        return raster.read(rasters.frame(), WEST, NORTH, SIZE, GSD)
    finally:
        raster.close()


def at(east: float, north: float) -> tuple[int, int]:
    """Row and column of a place in the view."""
    return round((NORTH - north) / GSD - 0.5), round((east - WEST) / GSD - 0.5)


def grey_file(path: Path, pixels: np.ndarray, affine: rasterio.Affine, **profile: object) -> Path:
    bands = pixels if pixels.ndim == 3 else pixels[None]
    with rasterio.open(
        path, "w", driver="GTiff", width=bands.shape[2], height=bands.shape[1],
        count=len(bands), dtype=bands.dtype, crs=CRS, transform=affine, **profile,
    ) as file:  # fmt: skip
        file.write(bands)
    return path


def seen_through_gaps(pixels: np.ndarray) -> np.ndarray:
    """BGRA whose western half is transparent; what lies under it is noise."""
    image = cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGRA)
    half = image.shape[1] // 2
    image[:, :half, :3] = np.random.default_rng(1).integers(0, 255, (image.shape[0], half, 3))
    image[:, :half, 3] = 0
    return image


@pytest.mark.parametrize("bits", [8, 16])
def test_transparent_web_tiles_show_nothing_there(bits: int, tmp_path: Path) -> None:
    def keep(zoom: int, x: int, y: int, data: bytes) -> None:
        image = seen_through_gaps(cv2.imdecode(np.frombuffer(data, np.uint8), 0))
        if bits == 16:
            image = image.astype(np.uint16) * 257
        (tmp_path / str(zoom) / str(x)).mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(tmp_path / str(zoom) / str(x) / f"{y}.png"), image)

    rasters.web_tiles(keep)
    _, shown = view(open_raster(tmp_path))
    assert 0.45 < shown.mean() < 0.55


def test_a_transparent_image_with_corners_shows_nothing_there(tmp_path: Path) -> None:
    path, corners = rasters.placed_image(tmp_path / "map.png")
    _, before = view(open_raster(path, corners))
    assert cv2.imwrite(str(path), seen_through_gaps(cv2.imread(str(path), 0)))
    _, shown = view(open_raster(path, corners))
    assert before.mean() > 0.95
    assert 0.4 < shown.mean() < 0.6


def test_a_geotiff_with_an_alpha_band_shows_nothing_there(tmp_path: Path) -> None:
    affine, width, height = rasters.affine_around(CRS, 0.3)
    pixels = rasters.render(CRS, affine, width, height)
    image = np.moveaxis(seen_through_gaps(pixels), 2, 0)
    path = grey_file(tmp_path / "map.tif", image, affine, photometric="RGB", alpha="YES")
    picture, shown = view(open_raster(path))
    assert 0.45 < shown.mean() < 0.55
    plain, _ = view(open_raster(grey_file(tmp_path / "plain.tif", pixels, affine)))
    assert np.abs(picture.astype(int) - plain)[:, SIZE // 2 + 8 :].max() <= 2


@pytest.mark.parametrize("bounds", ["zero", "world"])
def test_pmtiles_lie_where_their_tiles_do_whatever_the_header_says(
    bounds: str, tmp_path: Path
) -> None:
    pytest.importorskip("pmtiles", reason="pmtiles is not installed")
    truth = open_raster(rasters.pmtiles(tmp_path / "true.pmtiles"))
    raster = open_raster(rasters.pmtiles(tmp_path / "map.pmtiles", bounds))
    try:
        assert raster.middle() == pytest.approx(truth.middle(), abs=1e-9)
        assert raster.bounds(rasters.frame()) == pytest.approx(truth.bounds(rasters.frame()))
    finally:
        truth.close()
        raster.close()


def test_runs_of_tile_ids_are_squares() -> None:
    tile = pytest.importorskip("pmtiles.tile", reason="pmtiles is not installed")
    from gps_denied_inference.maps.sources.pmtiles import squares

    rng = np.random.default_rng(2)
    for _ in range(60):
        first, count = int(rng.integers(0, 3000)), int(rng.integers(1, 900))
        truth = {tile.tileid_to_zxy(id) for id in range(first, first + count)}
        found = [
            (zoom, x, y)
            for zoom, west, east, north, south in squares(first, count)
            for x in range(west, east + 1)
            for y in range(north, south + 1)
        ]
        assert len(found) == count
        assert set(found) == truth
    assert len(list(squares((4**15 - 1) // 3, 4**15))) == 1  # the whole world at zoom 15


def test_16_bits_are_stretched_alike_all_over_the_raster(tmp_path: Path) -> None:
    affine, width, height = rasters.affine_around(CRS, 0.3)
    ramp = np.linspace(1000, 9000, width)[None].repeat(height, 0)
    ramp += 300 * np.sign(np.sin(np.arange(height) / 5.0))[:, None]
    ramp[: height // 3] = 65_535  # no data
    path = grey_file(tmp_path / "map.tif", ramp.astype(np.uint16), affine, nodata=65_535)
    raster = open_raster(path)
    try:
        frame, size = rasters.frame(), 64
        parts = [raster.read(frame, east, -20.0, size, GSD)[0] for east in (-80.0, 0.0, 60.0)]
        means = [float(part.mean()) for part in parts]
        # The same place has the same brightness in whatever tile it is seen.
        apart, _ = raster.read(frame, 20.0, -20.0, size, GSD)
        beside, _ = raster.read(frame, 20.0 - 16 * GSD, -20.0, size, GSD)
    finally:
        raster.close()
    assert np.abs(apart[:, : size - 16].astype(int) - beside[:, 16:]).max() <= 1
    truth = [255 * (1000 + 8000 * (0.5 + (e + 12.8) / (1.5 * rasters.SIDE)) - 1000) / 8000
             for e in (-80.0, 0.0, 60.0)]  # fmt: skip
    assert means == pytest.approx(truth, abs=8.0)


def test_what_is_not_a_number_shows_nothing(tmp_path: Path) -> None:
    affine, width, height = rasters.affine_around(CRS, 0.3)
    pixels = rasters.render(CRS, affine, width, height).astype(np.float32) / 7.0
    pixels[:, : width // 2] = np.nan
    _, shown = view(open_raster(grey_file(tmp_path / "map.tif", pixels, affine)))
    assert 0.45 < shown.mean() < 0.55


def test_mbtiles_and_pmtiles_are_known_by_what_they_hold(tmp_path: Path) -> None:
    pytest.importorskip("pmtiles", reason="pmtiles is not installed")
    shutil.move(rasters.mbtiles(tmp_path / "a.mbtiles"), tmp_path / "a.tif")
    shutil.move(rasters.pmtiles(tmp_path / "b.pmtiles"), tmp_path / "b.mbtiles")
    shutil.move(rasters.geotiff(tmp_path / "c.tif", CRS), tmp_path / "c.pmtiles")
    pictures = [view(open_raster(tmp_path / n))[0] for n in ("a.tif", "b.mbtiles", "c.pmtiles")]
    truth = rasters.scene(
        *np.meshgrid(WEST + (np.arange(SIZE) + 0.5) * GSD, NORTH - (np.arange(SIZE) + 0.5) * GSD)
    )
    for picture in pictures:
        assert np.corrcoef(picture[..., 0].ravel(), truth.ravel())[0, 1] > 0.8


def points_table(path: Path, affine: rasterio.Affine, points: list[tuple[float, float]]) -> Path:
    lines = ["corner,px_x,px_y,lon,lat"]
    for x, y in points:
        lat, lon = rasters.frame().to_geodetic(*(affine @ (x, y)))
        lines.append(f",{x},{y},{lon!r},{lat!r}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("count", [3, 4, 6])
def test_points_that_are_not_the_corners_place_the_image_as_well(
    count: int, tmp_path: Path
) -> None:
    path, corners = rasters.placed_image(tmp_path / "map.png")
    truth, _ = view(open_raster(path, corners))
    affine, width, height = rasters.affine_around(rasters.frame().proj, 0.3, turn=20.0)
    points = [(100.0, 80.0), (width - 60.0, 120.0), (90.0, height - 200.0),
              (width - 250.0, height - 70.0), (300.0, 310.0), (400.0, 200.0)][:count]  # fmt: skip
    picture, _ = view(open_raster(path, points_table(tmp_path / "p.csv", affine, points)))
    assert np.abs(picture.astype(int) - truth).mean() < 1.0


def test_tables_that_cannot_be_are_refused(tmp_path: Path) -> None:
    path, corners = rasters.placed_image(tmp_path / "map.png")
    affine, width, height = rasters.affine_around(rasters.frame().proj, 0.3, turn=20.0)
    twice = [(0.0, 0.0), (2.0 * width, 0.0), (0.0, 2.0 * height), (2.0 * width, 2.0 * height)]
    with pytest.raises(MapError, match="another image"):
        open_raster(path, points_table(tmp_path / "twice.csv", affine, twice))
    line = [(0.0, 0.0), (100.0, 100.0), (200.0, 200.0), (300.0, 300.0)]
    with pytest.raises(MapError, match="one line"):
        open_raster(path, points_table(tmp_path / "line.csv", affine, line))
    names = {"TL": "TR", "TR": "TL"}
    rows = [row.split(",") for row in corners.read_text().splitlines()]
    mixed = [",".join([names.get(row[0], row[0]), *row[3:]]) for row in rows]
    (tmp_path / "mixed.csv").write_text("\n".join(mixed))
    with pytest.raises(MapError, match="mixed up"):
        open_raster(path, tmp_path / "mixed.csv")


COLORS = {10: (200, 30, 40, 255), 11: (20, 180, 60, 255), 12: (90, 90, 250, 255)}


def test_a_colour_table_is_looked_up_before_averaging(tmp_path: Path) -> None:
    affine, width, height = rasters.affine_around(CRS, 0.3)
    indexes = np.where(np.arange(width) < width // 2, 10, 12).astype(np.uint8)
    indexes = np.ascontiguousarray(indexes[None].repeat(height, 0))
    indexes[: height // 2] = 11
    path = tmp_path / "map.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=1, dtype="uint8", crs=CRS,
        transform=affine, photometric="palette",
    ) as file:  # fmt: skip
        file.write(indexes, 1)
        file.write_colormap(1, COLORS)
    for gsd in (GSD, 1.7):
        raster = open_raster(path)
        image, shown = raster.read(rasters.frame(), -40.0, 40.0, round(80 / gsd), gsd)
        raster.close()
        assert shown.all()
        quarter = len(image) // 4
        assert image[-quarter, quarter].tolist() == [200, 30, 40]
        assert image[quarter, quarter].tolist() == [20, 180, 60]
        assert image[-quarter, -quarter].tolist() == [90, 90, 250]
        # Along the border there are mixtures of both sides, never the colour in between (11).
        row = image[-quarter].astype(int)
        assert (row[:, 1] <= 92).all()


def test_bands_are_taken_by_what_they_show(tmp_path: Path) -> None:
    affine, width, height = rasters.affine_around(CRS, 0.3)
    kind = rasterio.enums.ColorInterp
    bands = np.stack([np.full((height, width), v, np.uint8) for v in (250, 30, 60, 90)])
    path = grey_file(tmp_path / "map.tif", bands, affine, photometric="MINISBLACK")
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [kind.undefined, kind.blue, kind.green, kind.red]
    image, _ = view(open_raster(path))
    assert image[SIZE // 2, SIZE // 2].tolist() == [90, 60, 30]
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [kind.hue, kind.saturation, kind.lightness, kind.alpha]
    with pytest.raises(MapError, match="red, green and blue"):
        open_raster(path)

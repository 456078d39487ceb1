"""Maps prepared from real rasters with the network that flies, by one process, several, or Dask."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rasterio", reason="rasterio is not installed")

import rasters

from gps_denied_inference.cli.main import main
from gps_denied_inference.errors import InvalidParameterError
from gps_denied_inference.maps.making import Source
from gps_denied_inference.maps.prepare import describe_map, engine_settings, levels_for, prepare
from gps_denied_inference.maps.store import MapStore
from gps_denied_inference.settings import Settings

TILE = 128


@pytest.fixture(scope="module")
def raster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rasters.geotiff(tmp_path_factory.mktemp("raster") / "map.tif", "EPSG:32632")


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("engines"))


def settings(engines: str) -> Settings:
    chosen = {"runtime": "onnxruntime", "device": "cpu", "max_keypoints": 100, "threads": 1,
              "engine_cache_directory": engines, "warmup_iterations": 1}  # fmt: skip
    return engine_settings(Settings.from_mapping(chosen), TILE)


@pytest.fixture(scope="module")
def alone(raster: Path, engines: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("map") / "alone.map"
    info = describe_map(Source(raster), settings(engines), (0.5, 1.0), 0.5, "")
    seen: list[tuple[int, int]] = []
    outcome = prepare(
        Source(raster), path, info, settings(engines),
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert outcome.tiles > 20
    assert outcome.skipped.get("nodata", 0) > 0  # the raster reaches over the scene
    assert seen[0][0] == 0
    assert seen[-1][0] == seen[-1][1] == outcome.tiles + sum(outcome.skipped.values())
    return path


def test_features_lie_on_the_scene_and_not_on_its_edge(alone: Path) -> None:
    store = MapStore(alone)
    assert store.info.attribution == "made up"
    assert store.info.crs == "EPSG:32632"
    cut = 0
    for place, _ in store.places():
        tile = store.load(place.id)
        assert tile.features.count <= 100
        side, half = place.size * place.gsd, rasters.SIDE / 2
        places = np.abs([tile.east, tile.east + side, tile.north, tile.north - side])
        if places.max() < half:  # it shows the scene alone
            continue
        cut += 1
        east = tile.east + (tile.features.keypoints[:, 0] + 0.5) * tile.gsd
        north = tile.north - (tile.features.keypoints[:, 1] + 0.5) * tile.gsd
        assert max(np.abs(east).max(), np.abs(north).max()) < half - 6 * tile.gsd
    assert cut > 5


def test_neighbouring_tiles_of_one_place_are_alike(alone: Path) -> None:
    store = MapStore(alone)
    ids, centres = store.centres(0)
    _, vectors = store.descriptors(0)
    alike = vectors @ vectors.T
    near = np.hypot(*(centres[:, None] - centres[None]).transpose(2, 0, 1)) < 0.6 * TILE * 0.5
    np.fill_diagonal(near, False)
    far = ~near
    np.fill_diagonal(far, False)
    assert len(ids) > 10
    assert alike[near].mean() > alike[far].mean()


def test_several_processes_make_the_same_map(
    alone: Path, raster: Path, engines: str, tmp_path: Path
) -> None:
    info = MapStore(alone).info
    prepare(Source(raster), tmp_path / "many.map", info, settings(engines), jobs=2)
    assert MapStore(tmp_path / "many.map").sha256 == MapStore(alone).sha256


def test_two_dask_workers_make_the_same_map(
    alone: Path, raster: Path, engines: str, tmp_path: Path
) -> None:
    distributed = pytest.importorskip("distributed", reason="Dask is not installed")
    info = MapStore(alone).info
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None,
        local_directory=str(tmp_path),
    ) as cluster:  # fmt: skip
        prepare(
            Source(raster), tmp_path / "dask.map", info, settings(engines),
            dask=cluster.scheduler_address,
        )  # fmt: skip
    assert MapStore(tmp_path / "dask.map").sha256 == MapStore(alone).sha256


def test_the_command_prepares_goes_on_shows_and_verifies(
    raster: Path, engines: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out.map"
    command = ["map", "prepare", str(raster), "-o", str(target), "--gsd", "1.0"]
    command += ["--tile", "128", "--keypoints", "100", "--device", "cpu"]
    command += ["--engine-cache-directory", engines]
    assert main(command) == 0
    first = capsys.readouterr().out
    assert main(command) == 0
    again = capsys.readouterr().out
    assert "; 0 in this run" in again
    assert first.split("content ")[1] == again.split("content ")[1]
    assert main(["map", "info", str(target)]) == 0
    assert "level 0     1 m/px" in capsys.readouterr().out
    assert main(["map", "verify", str(target)]) == 0
    assert "every byte as sealed" in capsys.readouterr().out
    assert main(["map", "show", str(target), "-o", str(tmp_path / "map.png")]) == 0
    assert (tmp_path / "map.png").stat().st_size > 10_000
    assert main([*command, "--model", "aliked-t16"]) == 1
    assert "another map" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--gsd", "1", "--height-min", "50"], "exclude each other"),
        (["--height-min", "50"], "go together"),
        (["--origin", "here"], "LAT,LON"),
        (["--tile", "100"], "image_width"),
        (["--gsd", "0"], "gsd"),
        (["--jobs", "0"], "jobs"),
    ],
)
def test_arguments_that_do_not_go_together_are_one_line(
    arguments: list[str], words: str, raster: Path, tmp_path: Path, capsys
) -> None:
    command = ["map", "prepare", str(raster), "-o", str(tmp_path / "x.map"), "--device", "cpu"]
    assert main([*command, *arguments]) == 1
    assert words in capsys.readouterr().err


def test_levels_follow_the_flight_heights() -> None:
    levels = levels_for(60.0, 240.0, 825.0, 960, 512, 0.25)
    footprints = [h * 960 / 825.0 for h in (60.0, 240.0)]
    assert levels[0] * 512 == pytest.approx(1.15 * max(footprints[0], 0), rel=0.9)
    assert levels[-1] * 512 == pytest.approx(1.15 * footprints[1], rel=0.01)
    ratios = np.divide(levels[1:], levels[:-1])
    assert (ratios <= 1.51).all()
    assert min(levels) >= 0.25
    assert levels_for(100.0, 100.0, 800.0, 800, 512, 0.1) == (pytest.approx(0.224609),)
    with pytest.raises(InvalidParameterError):
        levels_for(100.0, 50.0, 800.0, 800, 512, 0.1)


def test_info_is_plain_json(alone: Path) -> None:
    assert json.loads(MapStore(alone).info.to_json())["tile_px"] == TILE

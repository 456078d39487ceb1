"""Flights over real maps with the filter: found from nowhere, held, and lost off the map."""

from __future__ import annotations

import json
import os

import pytest

from gps_denied_inference.cli.main import main

LONG = bool(os.environ.get("GDI_LONG_TESTS"))
pytestmark = pytest.mark.timeout(1800 if LONG else 300)
"""s; the whole map is prepared first, and every frame searched on two cores."""


def prepared(shared_data, tmp_path_factory, name, *options):
    pytest.importorskip("pyproj", reason="maps need pyproj")
    pytest.importorskip("rasterio", reason="preparing a map needs rasterio")
    folder = shared_data / name
    if not folder.is_dir():
        pytest.skip(f"no {name} in {shared_data}")
    path = tmp_path_factory.mktemp("map") / f"{name}.map"
    keypoints = "1024" if LONG else "512"
    assert main(["map", "prepare", str(folder / "map.jpg"), "-o", str(path),
                 "--keypoints", keypoints, *options]) == 0  # fmt: skip
    return path, folder


def figures_of(tmp_path, path, frames, *options):
    out = tmp_path / "figures.json"
    assert main(["evaluate", str(path), str(frames), "--threads", "1", "--json", str(out),
                 *options]) == 0  # fmt: skip
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def arroio(shared_data, tmp_path_factory):
    corners = shared_data / "arroio_dev" / "map_corners.csv"
    heights = ["--height-min", "110", "--height-max", "185", "--fx", "825", "--width", "960"]
    levels = heights if LONG else ["--gsd", "0.5"]
    return prepared(shared_data, tmp_path_factory, "arroio_dev", "--corners", str(corners), *levels)


@pytest.mark.parametrize("heading", ["15", "unknown"])
def test_a_flight_over_another_season_is_found_from_nowhere_and_held(arroio, tmp_path, heading):
    """Its truth is off by up to 25 m, so right is within 30."""
    path, folder = arroio
    some = [] if LONG else ["--limit", "9"]
    figures = figures_of(
        tmp_path, path, folder, "--filter", "--height-sigma", "0.15", "--heading", heading,
        "--wrong-beyond", "30", *some,
    )  # fmt: skip
    assert figures["first_fix_after_frames"] <= 15
    assert figures["right_share_after_first"] >= 0.97
    assert figures["wrong"] == 0


@pytest.mark.skipif(not LONG, reason="358 frames, some minutes: GDI_LONG_TESTS=1")
def test_its_single_frames(arroio, tmp_path):
    path, folder = arroio
    figures = figures_of(tmp_path, path, folder, "--height-sigma", "0.15", "--heading", "15",
                         "--wrong-beyond", "30")  # fmt: skip
    assert figures["right_share"] >= 0.80
    assert figures["wrong"] == 0


def test_a_flight_elsewhere_is_lost_all_the_way(arroio, shared_data, tmp_path):
    path, _ = arroio
    elsewhere = shared_data / "caliterra"
    if not elsewhere.is_dir():
        pytest.skip(f"no caliterra in {shared_data}")
    some = [] if LONG else ["--limit", "2"]
    figures = figures_of(tmp_path, path, elsewhere, "--filter", "--heading", "unknown", *some)
    assert figures["fixes"] == 0
    assert set(figures["states"]) == {"lost"}

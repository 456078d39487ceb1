"""``gdi evaluate`` as a user runs it, on a prepared map and real frames."""

from __future__ import annotations

import json
import os

import cv2
import numpy as np
import pytest

from gps_denied_inference.cli.main import main

LONG = bool(os.environ.get("GDI_LONG_TESTS"))


@pytest.fixture(scope="module")
def fengyuan(shared_data, tmp_path_factory):
    pytest.importorskip("pyproj", reason="maps need pyproj")
    pytest.importorskip("rasterio", reason="preparing a map needs rasterio")
    folder = shared_data / "fengyuan_dev"
    if not folder.is_dir():
        pytest.skip(f"no fengyuan_dev in {shared_data}")
    path = tmp_path_factory.mktemp("map") / "fengyuan.map"
    code = main([
        "map", "prepare", str(folder / "map.jpg"), "--corners", str(folder / "map_corners.csv"),
        "--gsd", "0.324", "--keypoints", "512", "-o", str(path),
    ])  # fmt: skip
    assert code == 0
    return path, folder


@pytest.mark.parametrize("priors", [
    ["--prior-sigma", "75"], [], ["--heading", "unknown"], ["--filter"],
])  # fmt: skip
def test_frames_are_found_and_figures_written(fengyuan, tmp_path, priors):
    path, folder = fengyuan
    every = "1" if LONG else "5"
    out = tmp_path / "figures.json"
    assert main(["evaluate", str(path), str(folder), "--every", every, "--threads", "1",
                 "--json", str(out), *priors]) == 0  # fmt: skip
    figures = json.loads(out.read_text())
    frames = 15 if LONG else 3
    assert figures["frames"] == frames
    assert figures["wrong"] == 0
    assert figures["time_per_frame_ms"] > 0.0
    assert len(figures["per_frame"]) == frames
    if "--filter" not in priors:
        assert figures["fixes"] == frames
        assert figures["median_error_m"] <= 2.0
        assert figures["first_fix_after_frames"] == 1
    assert {"p95_error_m", "inside_2_sigma_share", "nees_mean", "stages_ms"} <= set(figures)


def test_the_report_is_one_page_with_its_pictures(fengyuan, tmp_path, capsys):
    path, folder = fengyuan
    report, raster = str(tmp_path / "report"), str(folder / "map.jpg")
    assert main(["evaluate", str(path), str(folder), "--limit", "2", "--threads", "1",
                 "--out", report, "--raster", raster]) == 0  # fmt: skip
    text = (tmp_path / "report" / "report.html").read_text()
    assert text.count("data:image/png;base64,") >= 6
    assert "best: DJI_" in text
    assert json.loads((tmp_path / "report" / "report.json").read_text())["frames"] == 2
    assert "median error m" in capsys.readouterr().out


def test_frames_from_elsewhere_get_no_fix(fengyuan, tmp_path):
    path, _ = fengyuan
    random = np.random.default_rng(0)
    for name, sigma in (("a", 2), ("b", 20)):
        grey = np.clip(128 + random.normal(0, sigma, (540, 960)), 0, 255).astype(np.uint8)
        cv2.imwrite(str(tmp_path / f"{name}.png"), grey)
    out = tmp_path / "figures.json"
    assert main(["evaluate", str(path), str(tmp_path), "--filter", "--threads", "1",
                 "--json", str(out)]) == 0  # fmt: skip
    figures = json.loads(out.read_text())
    assert (figures["frames"], figures["fixes"], figures["wrong"]) == (2, 0, 0)
    assert set(figures["states"]) == {"lost"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--heading", "north"], "--heading north"),
        (["--height-sigma", "-1"], "--height-sigma -1"),
        (["--every", "0"], "--every 0"),
        (["--fx", "0"], "--fx 0"),
        (["--camera", "/not/there.json"], "there.json"),
    ],
)
def test_what_cannot_be_is_one_line(fengyuan, options, said, capsys):
    path, folder = fengyuan
    assert main(["evaluate", str(path), str(folder), "--limit", "1", *options]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error

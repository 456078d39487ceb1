"""The whole localization, filter and all, on flights whose every pose is known exactly.

Turns of all headings, height 30 % up and down, up to 10 degrees of tilt, light and colour of
another day. ``GDI_LONG_TESTS=1`` flies the whole figure of 240 frames; ``-s`` prints the figures.
"""

from __future__ import annotations

import json
import os

import cv2
import numpy as np
import pytest
from flight_frames import write_frames
from simulated_map import scene_map

from gps_denied_inference.cli.main import main
from gps_denied_inference.demo.scene import GROUND_SAMPLE
from gps_denied_inference.demo.scene_map import another_day
from gps_denied_inference.demo.simulation import STEEP, SimulatedFlight

LONG = bool(os.environ.get("GDI_LONG_TESTS"))
COUNT = 240 if LONG else 12
pytest.importorskip("pyproj", reason="maps need pyproj")
pytest.importorskip("rasterio", reason="preparing a map needs rasterio")


def flown(tmp_path, flight, path, ground_sample, capsys):
    """Evaluate the flight with the filter; return its figures and errors in px of the map."""
    frames, out = write_frames(flight, range(COUNT), tmp_path / "flight"), tmp_path / "figures.json"
    assert main(["evaluate", str(path), str(frames), "--filter", "--threads", "1", "--json",
                 str(out), "--wrong-beyond", str(2.0 * ground_sample)]) == 0  # fmt: skip
    figures = json.loads(out.read_text())
    errors = np.array([np.inf if row["error_m"] is None else row["error_m"] / ground_sample
                       for row in figures["per_frame"]])  # fmt: skip
    with capsys.disabled():
        says = ", ".join(f"p{p:g} {np.percentile(errors, p, method='higher'):.2f}"
                         for p in (50, 90, 95, 99, 100))  # fmt: skip
        print(f"\n{path.name}: {np.mean(errors <= 2.0):.1%} of {len(errors)} frames within 2 map "
              f"px; error in map px {says}")  # fmt: skip
    return figures, errors


def is_the_flight_that_is_asked_for(flight):
    """Tell whether height, tilt and heading swing as far as the module says."""
    poses = [flight.pose(index) for index in range(240)]
    heights = np.array([pose.height for pose in poses])
    down = [np.degrees(np.arccos(-flight.camera_to_enu(i)[2, 2])) for i in range(240)]
    turned = np.unwrap([pose.heading for pose in poses])
    return (
        heights.max() / heights.mean() > 1.29 and heights.min() / heights.mean() < 0.71
        and 9.5 < max(down) < 11.0 and np.ptp(turned) > np.pi
    )  # fmt: skip


def check(figures, errors):
    assert figures["wrong"] == sum(np.isfinite(errors) & (errors > 2.0))
    assert figures["first_fix_after_frames"] <= 2
    # The first frame alone may not settle it: one of twelve, none of what follows.
    assert np.mean(errors[0 if LONG else 1 :] <= 2.0) >= 0.99


def test_the_landsat_scene(tmp_path, capsys):
    flight = SimulatedFlight(frames=240, manoeuvre=STEEP)
    assert is_the_flight_that_is_asked_for(flight)
    check(*flown(tmp_path, flight, scene_map(), GROUND_SAMPLE, capsys))


@pytest.mark.skipif(not LONG, reason="another map and 240 frames: GDI_LONG_TESTS=1")
def test_a_real_orthophoto(tmp_path, capsys, shared_data):
    picture = shared_data / "village_dev" / "map.jpg"
    if not picture.is_file():
        pytest.skip(f"no village_dev in {shared_data}")
    scene = cv2.cvtColor(cv2.imread(str(picture)), cv2.COLOR_BGR2RGB)
    flight = SimulatedFlight(
        frames=240, manoeuvre=STEEP, scene=scene, ground_sample=0.6, scale=0.6 / 30.0 * 1.6
    )
    raster, path = tmp_path / "village.png", tmp_path / "village.map"
    cv2.imwrite(str(raster), cv2.cvtColor(another_day(scene), cv2.COLOR_RGB2BGR))
    assert main(["map", "prepare", str(raster), "--gsd-of-image", "0.6", "--origin", "37.7,-121.6",
                 "--gsd", "0.416", "--keypoints", "512", "-o", str(path)]) == 0  # fmt: skip
    check(*flown(tmp_path, flight, path, 0.6, capsys))

"""The simulated flight's scene as a map, and where its camera truly is on it."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import cv2
import numpy as np

from gps_denied_inference.demo.scene import GROUND_SAMPLE, load_scene
from gps_denied_inference.demo.simulation import SimulatedFlight
from gps_denied_inference.maps.making import Source
from gps_denied_inference.maps.prepare import describe_map, engine_settings, prepare
from gps_denied_inference.settings import Settings

ORIGIN = (37.7, -121.6)
"""Latitude and longitude that the scene's middle is given."""
TILE, GSD, KEYPOINTS = 512, 13.0, 512


@functools.cache
def scene_map() -> Path:
    """Prepare the map once a test session; return its file."""
    folder = Path(tempfile.mkdtemp(prefix="gdi_scene_map_"))
    picture = folder / "scene.png"
    # Other light and colour than the frames': the map is another day's.
    scene = cv2.cvtColor(load_scene(), cv2.COLOR_RGB2GRAY).astype(np.float32)
    faded = np.clip(30.0 + 0.7 * scene, 0, 255).astype(np.uint8)
    assert cv2.imwrite(str(picture), faded)
    chosen = {"max_keypoints": KEYPOINTS, "device": "cpu", "warmup_iterations": 1, "threads": 1,
              "engine_cache_directory": str(folder / "engines")}  # fmt: skip
    settings = engine_settings(Settings.from_mapping(chosen), TILE)
    source = Source(picture, gsd=GROUND_SAMPLE, origin=ORIGIN)
    info = describe_map(source, settings, (GSD,), 0.5, "U.S. Geological Survey")
    prepare(source, folder / "scene.map", info, settings)
    return folder / "scene.map"


def truth(flight: SimulatedFlight, index: int) -> complex:
    """Return where the camera is: east and north of the origin, m."""
    pose = flight.pose(index)
    return complex(pose.east, -pose.south)

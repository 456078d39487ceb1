"""The sample scene as a map, and where the simulated flight's camera truly is on it.

The map shows the scene as another film saw it on another day: other colours, a flatter, hazy light.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from gps_denied_inference.demo.scene import GROUND_SAMPLE, load_scene
from gps_denied_inference.demo.simulation import SimulatedFlight
from gps_denied_inference.errors import StorageError
from gps_denied_inference.maps.making import Source
from gps_denied_inference.maps.prepare import describe_map, engine_settings, prepare
from gps_denied_inference.settings import Settings

Image = npt.NDArray[np.uint8]

ORIGIN = (37.7, -121.6)
"""Latitude and longitude that the scene's middle is given."""
TILE, GSD, KEYPOINTS = 512, 13.0, 512
FIGURE = 240
"""Frames of a whole figure of eight."""
ATTRIBUTION = "Landsat 7 image courtesy of the U.S. Geological Survey"

# Rows: red, green and blue of the map, mixed of the scene's near infrared, red and green.
_FILM = np.array([[0.15, 0.65, 0.20], [0.40, 0.45, 0.15], [0.10, 0.25, 0.65]], np.float32)
_GAMMA, _CONTRAST, _HAZE = 0.8, 0.72, 34.0


def another_day(scene: Image) -> Image:
    """Return the scene, uint8 (H, W, 3) RGB, in the map's light and colours."""
    mixed = scene.astype(np.float32) @ _FILM.T
    bright = 255.0 * (np.clip(mixed, 0.0, 255.0) / 255.0) ** _GAMMA
    return np.asarray(np.clip(np.rint(_HAZE + _CONTRAST * bright), 0, 255), np.uint8)


def engine_parameters(parameters: Mapping[str, str]) -> dict[str, object]:
    """Return those of the node's parameters, as text, that the engine of the tiles shares."""
    rows = {row.name: row for row in Settings.table()}
    shared = ("runtime", "device", "precision", "threads", "engine_cache_directory")
    return {
        name: int(parameters[name]) if rows[name].type_name == "integer" else parameters[name]
        for name in shared if name in parameters
    }  # fmt: skip


def make_scene_map(
    folder: Path,
    settings: Mapping[str, object],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Prepare the map of the scene in a folder, as ``gdi map prepare`` does; return its file.

    Args:
        folder: takes the map and its picture.
        settings: of the engine that sees the tiles, by name.
        progress: told how many of how many tiles are done.

    Raises:
        StorageError: the folder cannot be written.
        ConfigurationError: what maps need is not installed.
        GpsDeniedInferenceError: an engine cannot be had.
    """
    picture, destination = folder / "map.png", folder / "scene.map"
    bgr = cv2.cvtColor(another_day(load_scene()), cv2.COLOR_RGB2BGR)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        picture.write_bytes(cv2.imencode(".png", bgr)[1].tobytes())
        destination.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"cannot write {folder}: {error.strerror or error}") from error
    chosen = {**settings, "max_keypoints": KEYPOINTS, "task": "extract"}
    engine = engine_settings(Settings.from_mapping(chosen), TILE)
    source = Source(picture, gsd=GROUND_SAMPLE, origin=ORIGIN)
    info = describe_map(source, engine, (GSD,), 0.5, ATTRIBUTION)
    prepare(source, destination, info, engine, progress=progress)
    return destination


def truth(flight: SimulatedFlight, index: int) -> complex:
    """Return where the camera is: east and north of the origin, m."""
    pose = flight.pose(index)
    return complex(pose.east, -pose.south)

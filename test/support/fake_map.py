"""A map for tests in which localization runs and what it finds does not matter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
from node_process import textured_frames

from gps_denied_inference.maps.making import Source
from gps_denied_inference.maps.prepare import describe_map, engine_settings, prepare
from gps_denied_inference.settings import Settings

TILE = 128


def fake_map(folder: Path, parameters: Mapping[str, object]) -> Path:
    """Prepare a map of a textured ground with the engine that the parameters name."""
    picture = folder / "ground.png"
    assert cv2.imwrite(str(picture), next(textured_frames(300, 300)))
    settings = engine_settings(Settings.from_mapping(parameters), TILE)
    source = Source(picture, gsd=1.0, origin=(47.0, 8.0))
    prepare(source, folder / "fake.map", describe_map(source, settings, (1.0,), 0.5, "none"),
            settings)  # fmt: skip
    return folder / "fake.map"

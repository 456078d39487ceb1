"""The simulated flight's scene as a map, made once a test session."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from gps_denied_inference.demo.scene_map import make_scene_map


@functools.cache
def scene_map() -> Path:
    """Prepare the map once a test session; return its file."""
    folder = Path(tempfile.mkdtemp(prefix="gdi_scene_map_"))
    chosen = {"device": "cpu", "warmup_iterations": 1, "threads": 1,
              "engine_cache_directory": str(folder / "engines")}  # fmt: skip
    return make_scene_map(folder, chosen)

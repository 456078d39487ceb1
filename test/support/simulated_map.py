"""The simulated flight's scene as a map, made once for all the processes of a test run."""

from __future__ import annotations

import fcntl
import functools
import os
import tempfile
from pathlib import Path

from gps_denied_inference.demo.scene_map import make_scene_map


@functools.cache
def scene_map() -> Path:
    """Prepare the map once a test run; return its file, which no test may change.

    ``tools/run_tests.py`` names a folder that its processes share; pytest on its own has one each.
    """
    shared = os.environ.get("GDI_TEST_SHARED_FOLDER")
    folder = Path(shared or tempfile.mkdtemp(prefix="gdi_scene_map_")) / "scene_map"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ready = folder / "ready"
        if not ready.exists():
            chosen = {"device": "cpu", "warmup_iterations": 1, "threads": 1,
                      "engine_cache_directory": str(folder / "engines")}  # fmt: skip
            ready.write_text(make_scene_map(folder, chosen).name, encoding="utf-8")
        return folder / ready.read_text(encoding="utf-8")

"""What maps cost: bytes and seconds a tile, and the time a frame's candidates take as maps grow.

Run from the source tree: ``python3 -m benchmarks.maps --out growth.png``.

Candidates are timed over real map files of made-up tiles (:func:`synthetic_map`), bytes and seconds
a tile with a real preparation of the simulated flight's scene.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
from threadpoolctl import threadpool_limits

from gps_denied_inference.maps.codec import encode
from gps_denied_inference.maps.descriptor import GlobalDescriptor
from gps_denied_inference.maps.store import MapStore
from gps_denied_inference.maps.tiles import MapInfo, grid
from gps_denied_inference.maps.writer import MapWriter
from gps_denied_inference.pipeline.features import Features
from gps_denied_inference.pipeline.localization.candidates import Region, narrow

SIDES = (20, 32, 60, 100)
"""Tiles along the side of the maps that are timed."""
MOST = 256
VIEWS = 8
DIM_OF_FEATURES = 64
LIMIT_S = 0.010
"""What a frame's candidates may take on a quiet machine."""


def made_up(seed: int, count: int, info: MapInfo) -> Features:
    """Return features that no image has."""
    random = np.random.default_rng(seed)
    descriptors = random.normal(size=(count, DIM_OF_FEATURES)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    points = random.uniform(0, info.tile_px - 1, (count, 2)).astype(np.float32)
    scores = np.linspace(1.0, 0.1, count, dtype=np.float32)
    return Features(points, scores, descriptors, info.tile_px, info.tile_px, info.model,
                    info.model_sha256)  # fmt: skip


def synthetic_map(path: Path, side: int, keypoints: int) -> MapStore:
    """Write a map of ``side`` x ``side`` tiles of :func:`made_up` features, and open it."""
    half = 0.25 * 256 * 0.3 * (side + 1)
    info = MapInfo(
        lat0=47.0, lon0=8.0, model="xfeat", model_sha256="ab" * 32, max_keypoints=keypoints,
        levels=(0.3,), tile_px=256, overlap=0.5, color="mono", detection_threshold=0.05,
        source="made up", source_sha256="cd" * 32, crs="EPSG:4326", attribution="",
        west=-half, south=-half, east=half, north=half,
    )  # fmt: skip
    with threadpool_limits(1, "blas"), MapWriter(path, info) as writer:
        descriptor = GlobalDescriptor.train([made_up(seed, 100, info) for seed in range(8)])
        writer.set_descriptor(descriptor)
        rows = []
        for place in grid(info):
            features = made_up(place.id, keypoints, info)
            rows.append((place, encode(place.id, features, descriptor.describe_tile(features))))
            if len(rows) == 500:
                writer.add(rows)
                rows.clear()
        writer.add(rows)
        writer.finish()
    return MapStore(path)


@dataclass(frozen=True)
class Candidates:
    """What a frame's candidates take.

    Attributes:
        tiles: in the map.
        nowhere_s: s, least of several, without any prior.
        near_s: s, with a prior of 75 m.
    """

    tiles: int
    nowhere_s: float
    near_s: float


def time_candidates(store: MapStore, features: Features, times: int = 15) -> Candidates:
    """Time :func:`~.candidates.narrow` with views of one frame, on one thread."""
    sights: Any = [SimpleNamespace(features=features)] * VIEWS
    best = []
    with threadpool_limits(1, "blas"):
        for region in (None, Region(0j, 75.0)):
            took: list[float] = []
            narrow(store, 0, region, sights, store.describe, MOST)  # reads what stays in memory
            for _ in range(times):
                began = time.perf_counter()
                narrow(store, 0, region, sights, store.describe, MOST)
                took.append(time.perf_counter() - began)
            best.append(min(took))
    return Candidates(store.tile_count, *best)


def time_preparation(folder: Path, keypoints: int) -> tuple[int, float, float]:
    """Prepare a real map; return its tiles, seconds and bytes a tile, engine not counted."""
    from gps_denied_inference.demo.scene import GROUND_SAMPLE, load_scene
    from gps_denied_inference.maps.making import Source
    from gps_denied_inference.maps.prepare import describe_map, engine_settings, prepare
    from gps_denied_inference.settings import Settings

    picture = folder / "scene.png"
    cv2.imwrite(str(picture), cv2.cvtColor(load_scene(), cv2.COLOR_RGB2BGR))
    chosen = {"max_keypoints": keypoints, "device": "cpu"}
    settings = engine_settings(Settings.from_mapping(chosen), 512)
    source = Source(picture, gsd=GROUND_SAMPLE, origin=(37.7, -121.6))
    info = describe_map(source, settings, (), 0.75, "")
    marks: list[tuple[int, float]] = []
    outcome = prepare(
        source, folder / "scene.map", info, settings,
        progress=lambda done, total: marks.append((done, time.perf_counter())),
    )  # fmt: skip
    (first, began), (last, ended) = marks[1], marks[-1]
    return outcome.tiles, (ended - began) / max(last - first, 1), outcome.bytes_per_tile


def draw(rows: Sequence[Candidates], path: Path) -> None:
    """Plot time over size."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    tiles = [row.tiles for row in rows]
    axis.loglog(tiles, [1e3 * row.nowhere_s for row in rows], "o-", label="no prior")
    axis.loglog(tiles, [1e3 * row.near_s for row in rows], "s-", label="prior of 75 m")
    axis.axhline(1e3 * LIMIT_S, color="grey", linestyle="--", label="limit at 10,000 tiles")
    axis.set_xlabel("tiles in the map")
    axis.set_ylabel("candidates of a frame / ms")
    axis.grid(alpha=0.3, which="both")
    axis.legend()
    figure.savefig(path, dpi=120)


def main() -> int:
    """Measure, print and plot."""
    parser = argparse.ArgumentParser(description="What maps cost.")
    parser.add_argument("--out", type=Path, default=Path("growth.png"), metavar="PNG")
    parser.add_argument("--keypoints", type=int, default=1024, help="of a frame (1024)")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for side in SIDES:
            store = synthetic_map(folder / f"{side}.map", side, 8)
            rows.append(time_candidates(store, made_up(99, args.keypoints, store.info)))
            store.close()
            row = rows[-1]
            print(f"{row.tiles:6d} tiles: candidates {1e3 * row.nowhere_s:5.1f} ms without prior, "
                  f"{1e3 * row.near_s:4.1f} ms with one of 75 m")  # fmt: skip
        tiles, seconds, size = time_preparation(folder, args.keypoints)
    print(f"preparation: {tiles} tiles of 512 px, {seconds:.3f} s and {size / 1e3:.1f} kB a tile")
    draw(rows, args.out)
    growth = math.log(rows[-1].nowhere_s / rows[0].nowhere_s) / math.log(
        rows[-1].tiles / rows[0].tiles
    )
    print(f"growth: time ~ tiles^{growth:.2f}; load {os.getloadavg()[0]:.1f}; plot {args.out}")
    return int(rows[-1].nowhere_s > LIMIT_S)


if __name__ == "__main__":
    raise SystemExit(main())

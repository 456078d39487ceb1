"""A map as a picture: where its tiles and features lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gps_denied_inference.errors import StorageError
from gps_denied_inference.maps.store import MapStore
from gps_denied_inference.pipeline.localization.tiles import ground_points

_FEATURES_DRAWN = 200_000


def draw(store: MapStore, path: Path) -> None:
    """Write a picture: density of features, outlines of the tiles, level by level.

    Args:
        store: the map.
        path: of the picture; its suffix says which kind.

    Raises:
        StorageError: the picture cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    info = store.info
    levels = len(info.levels)
    figure = Figure(figsize=(6.0 * levels, 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, levels, squeeze=False)[0]
    for level, axis in enumerate(axes):
        _draw_level(store, level, axis)
    figure.suptitle(f"{store.path.name}: {info.model}, K = {info.max_keypoints}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise StorageError(f"cannot write {path}: {error}") from error


def _draw_level(store: MapStore, level: int, axis: Any) -> None:
    info = store.info
    places = [place for place, _ in store.places() if place.level == level]
    axis.set_aspect("equal")
    axis.set_xlabel("east / m")
    axis.set_ylabel("north / m")
    axis.set_title(f"{info.levels[level]:g} m/px, {len(places)} tiles")
    if not places:
        return
    tiles = [store.load(place.id) for place in places]
    points = np.concatenate([ground_points(tile, tile.features.keypoints) for tile in tiles])
    if len(points) > _FEATURES_DRAWN:
        points = points[:: len(points) // _FEATURES_DRAWN + 1]
    shown = axis.hexbin(points[:, 0], points[:, 1], gridsize=60, cmap="viridis", mincnt=1)
    axis.figure.colorbar(shown, ax=axis, label="features", shrink=0.7)
    for place in places:
        side = place.size * place.gsd
        x = [place.east, place.east + side, place.east + side, place.east, place.east]
        y = [place.north, place.north, place.north - side, place.north - side, place.north]
        axis.plot(x, y, color="white", linewidth=0.4, alpha=0.6)
    bounds = [info.west, info.east, info.east, info.west, info.west]
    axis.plot(
        bounds, [info.north, info.north, info.south, info.south, info.north], color="red",
        linewidth=1.0,
    )  # fmt: skip

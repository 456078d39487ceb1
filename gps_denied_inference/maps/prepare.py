"""A raster becomes a map: tile by tile, by one process or many, and on from where it stopped."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gps_denied_inference.errors import InvalidParameterError
from gps_denied_inference.maps.frame import LocalFrame
from gps_denied_inference.maps.making import Made, Source, train
from gps_denied_inference.maps.tiles import MapInfo, Place, grid
from gps_denied_inference.maps.workers import CHUNK, Work, make_here, make_in_processes
from gps_denied_inference.maps.writer import MapWriter
from gps_denied_inference.networks import Networks
from gps_denied_inference.settings import Settings

BATCH = 16
"""Tiles that are written in one step: what is lost at most when the process dies."""
LEVEL_STEP = 1.5
"""Factor between the ground sampling distances of neighbouring levels."""
TILE_OVER_FOOTPRINT = 1.15
"""A tile's side over the longer side of the frames that it is for."""


@dataclass(frozen=True)
class Outcome:
    """What preparation came to.

    Attributes:
        tiles: in the map.
        skipped: places that show nothing, by reason.
        made: tiles and places of this run; the others were there already.
        content_sha256: hex.
        bytes_per_tile: of the features, on average.
    """

    tiles: int
    skipped: dict[str, int]
    made: int
    content_sha256: str
    bytes_per_tile: float


def levels_for(
    height_min: float, height_max: float, focal: float, width: int, tile_px: int, native: float
) -> tuple[float, ...]:
    """Return the ground sampling distances that flight heights need, m/px, ascending.

    Args:
        height_min, height_max: m above ground.
        focal: px, of the camera.
        width: px, of its longer side.
        tile_px: px.
        native: m/px of the raster: no level is finer.

    Raises:
        InvalidParameterError: a height or focal length that is none.
    """
    for name, value in (("height-min", height_min), ("height-max", height_max), ("fx", focal)):
        if not (math.isfinite(value) and value > 0.0):
            raise InvalidParameterError(name, value, "a finite number > 0")
    if height_max < height_min:
        raise InvalidParameterError("height-max", height_max, f"at least {height_min:g} m")
    finest, coarsest = (
        TILE_OVER_FOOTPRINT * h * width / (focal * tile_px) for h in (height_min, height_max)
    )
    steps = max(0, math.ceil(math.log(coarsest / finest) / math.log(LEVEL_STEP) - 1e-9))
    factor = (coarsest / finest) ** (1.0 / steps) if steps else 1.0
    wanted = [finest * factor**step for step in range(steps + 1)]
    return tuple(sorted({round(max(gsd, native), 6) for gsd in wanted}))


def engine_settings(settings: Settings, tile_px: int) -> Settings:
    """Return the settings of the engine that sees whole tiles."""
    return dataclasses.replace(
        settings, task="extract", image_width=tile_px, image_height=tile_px,
        thermal_reduced_keypoints=0,
    )  # fmt: skip


def describe_map(
    source: Source, settings: Settings, levels: Sequence[float], overlap: float, attribution: str
) -> MapInfo:
    """Return what the map of a raster will be.

    Args:
        source: the raster.
        settings: of the engine; its image is a tile.
        levels: m/px; empty = the raster's own.
        overlap: of neighbouring tiles, as a share.
        attribution: instead of the raster's own.
    """
    raster = source.open()
    networks = Networks(settings)
    try:
        extractor = networks.extractor(settings.max_keypoints)
        lat0, lon0 = (round(value, 9) for value in raster.middle())
        west, south, east, north = raster.bounds(LocalFrame(lat0, lon0))
        return MapInfo(
            lat0=lat0,
            lon0=lon0,
            model=settings.model,
            model_sha256=extractor.model_sha256,
            max_keypoints=settings.max_keypoints,
            levels=tuple(sorted(levels)) or (round(raster.native_gsd, 6),),
            tile_px=settings.image_width,
            overlap=overlap,
            color=settings.color,
            detection_threshold=settings.detection_threshold,
            source=raster.name,
            source_sha256=raster.sha256,
            crs=raster.crs,
            attribution=attribution or raster.attribution,
            west=round(west, 3),
            south=round(south, 3),
            east=round(east, 3),
            north=round(north, 3),
        )
    finally:
        networks.close()
        raster.close()


def prepare(
    source: Source,
    destination: Path,
    info: MapInfo,
    settings: Settings,
    *,
    jobs: int = 1,
    dask: str = "",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Outcome:
    """Make a map, or finish one that was begun.

    Args:
        source: the raster.
        destination: the map's file.
        info: from :func:`describe_map`.
        settings: of the engine.
        jobs: processes on this machine.
        dask: address of a Dask scheduler whose workers do it instead; they need this package and
            the raster at the same path.
        progress: told how many of how many places are done.

    Raises:
        MapError: ``destination`` is another map, or the raster cannot be read.
        StorageError: the disk is full or cannot be written.
        ConfigurationError: Dask is not installed or does not answer.
    """
    if not 1 <= jobs <= 256:
        raise InvalidParameterError("jobs", jobs, "in 1..256")
    places = grid(info)
    with MapWriter(destination, info) as writer:
        before = len(writer.done)
        progress(before, len(places))
        if before < len(places):
            descriptor = writer.descriptor
            if descriptor is None:
                descriptor = train(source, info, settings)
                writer.set_descriptor(descriptor)
            work = Work(source, info, settings, descriptor)
            todo = (place for place in places if place.id not in writer.done)
            batch: list[Made] = []
            for made in _make_all(work, todo, len(places) - before, jobs, dask):
                batch.append(made)
                if len(batch) >= BATCH:
                    _write(writer, batch)
                    progress(len(writer.done), len(places))
            _write(writer, batch)
            progress(len(writer.done), len(places))
        digest = writer.finish()
    return _outcome(destination, len(places) - before, digest)


def _outcome(destination: Path, made: int, digest: str) -> Outcome:
    from gps_denied_inference.maps.store import MapStore

    store = MapStore(destination)
    try:
        size = destination.stat().st_size
        tiles = store.tile_count
        return Outcome(tiles, store.skipped, made, digest, size / max(tiles, 1))
    finally:
        store.close()


def _write(writer: MapWriter, batch: list[Made]) -> None:
    tiles = [(place, row) for place, row, _ in batch if row is not None]
    skipped = [(place, reason) for place, row, reason in batch if row is None]
    writer.add(tiles, skipped)
    batch.clear()


def _make_all(
    work: Work, todo: Iterator[Place], count: int, jobs: int, dask: str
) -> Iterator[Made]:
    if dask:
        from gps_denied_inference.maps.regions import make_on_cluster

        return make_on_cluster(dask, work, todo)
    if jobs > 1 and count > CHUNK:
        return make_in_processes(work, todo, jobs)
    return make_here(work, todo)

"""A raster becomes a map: tile by tile, by one process or many, and on from where it stopped."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from gps_denied_inference.errors import ConfigurationError, InvalidParameterError
from gps_denied_inference.maps.codec import Encoded, encode
from gps_denied_inference.maps.describe import describe
from gps_denied_inference.maps.frame import LocalFrame
from gps_denied_inference.maps.sources.choose import open_raster
from gps_denied_inference.maps.sources.raster import Mask, Raster
from gps_denied_inference.maps.store import MapWriter
from gps_denied_inference.maps.tiles import MapInfo, Place, grid
from gps_denied_inference.networks import Networks
from gps_denied_inference.pipeline.features import Features
from gps_denied_inference.settings import Settings

LEAST_SHOWN = 0.3
"""Share of a tile that has to show something."""
LEAST_FEATURES = 8
EDGE = 8
"""px around what shows nothing in which no feature is kept."""
BATCH = 16
"""Tiles that are written in one step: what is lost at most when the process dies."""
LEVEL_STEP = 1.5
"""Factor between the ground sampling distances of neighbouring levels."""
TILE_OVER_FOOTPRINT = 1.15
"""A tile's side over the longer side of the frames that it is for."""


@dataclass(frozen=True)
class Source:
    """What :func:`~.sources.choose.open_raster` takes."""

    path: Path
    corners: Path | None = None
    gsd: float | None = None
    origin: tuple[float, float] | None = None

    def open(self) -> Raster:
        """Open it."""
        return open_raster(self.path, self.corners, self.gsd, self.origin)


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


Made = tuple[Place, Encoded | None, str]
"""A place, its tile, and where there is none the reason."""


class TileMaker:
    """Makes tiles of one raster with one engine.

    Args:
        source: the raster.
        info: of the map.
        settings: of the engine; see :func:`engine_settings`.
    """

    def __init__(self, source: Source, info: MapInfo, settings: Settings) -> None:
        self._info = info
        self._raster = source.open()
        self._networks = Networks(settings)
        self._extractor = self._networks.extractor(settings.max_keypoints)

    def make(self, place: Place) -> Made:
        """Make one tile.

        Raises:
            MapError: the raster cannot be read there.
        """
        info = self._info
        image, shown = self._raster.read(info.frame, place.east, place.north, place.size, place.gsd)
        if shown.mean() < LEAST_SHOWN:
            return place, None, "nodata"
        if info.color == "mono":
            image = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
        features = _on_ground(self._extractor.extract(image), shown)
        if features.count < LEAST_FEATURES:
            return place, None, "featureless"
        return place, encode(place.id, features, describe(features)), ""

    def close(self) -> None:
        """Give raster and engine back."""
        self._networks.close()
        self._raster.close()


def _on_ground(features: Features, shown: Mask) -> Features:
    """Drop features where the tile shows nothing, and along the edge of that."""
    if shown.all():
        return features
    kernel = np.ones((2 * EDGE + 1, 2 * EDGE + 1), np.uint8)
    padded = cv2.copyMakeBorder(shown.astype(np.uint8), EDGE, EDGE, EDGE, EDGE,
                                cv2.BORDER_REPLICATE)  # fmt: skip
    inside = cv2.erode(padded, kernel)[EDGE:-EDGE, EDGE:-EDGE] > 0
    at = np.rint(features.keypoints).astype(int)
    kept = inside[
        np.clip(at[:, 1], 0, shown.shape[0] - 1), np.clip(at[:, 0], 0, shown.shape[1] - 1)
    ]
    return Features(
        features.keypoints[kept], features.scores[kept], features.descriptors[kept],
        features.width, features.height, features.model, features.model_sha256,
    )  # fmt: skip


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
        todo = [place for place in places if place.id not in writer.done]
        progress(len(places) - len(todo), len(places))
        batch: list[Made] = []
        for made in _make_all(source, info, settings, todo, jobs, dask):
            batch.append(made)
            if len(batch) >= BATCH:
                _write(writer, batch)
                progress(len(writer.done), len(places))
        _write(writer, batch)
        progress(len(writer.done), len(places))
        digest = writer.finish()
    return _outcome(destination, len(todo), digest)


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
    source: Source, info: MapInfo, settings: Settings, todo: list[Place], jobs: int, dask: str
) -> Iterator[Made]:
    if dask:
        from gps_denied_inference.maps.regions import make_on_cluster

        return make_on_cluster(dask, source, info, settings, todo)
    if jobs > 1 and len(todo) > 1:
        return _make_in_processes(source, info, settings, todo, jobs)
    return _make_here(source, info, settings, todo)


def _make_here(
    source: Source, info: MapInfo, settings: Settings, todo: list[Place]
) -> Iterator[Made]:
    if not todo:
        return
    maker = TileMaker(source, info, settings)
    try:
        for place in todo:
            yield maker.make(place)
    finally:
        maker.close()


def _make_in_processes(
    source: Source, info: MapInfo, settings: Settings, todo: list[Place], jobs: int
) -> Iterator[Made]:
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    context = multiprocessing.get_context("spawn")  # forked vendor libraries hang
    with ProcessPoolExecutor(
        min(jobs, len(todo)), context, initializer=start_worker, initargs=(source, info, settings)
    ) as pool:
        try:
            yield from pool.map(work, todo, chunksize=4)
        except BrokenProcessPool as error:
            raise ConfigurationError(
                f"a worker process ended ({error}): out of memory? Run the same command again "
                "with fewer --jobs, it goes on"
            ) from error


_maker: TileMaker | None = None


def start_worker(source: Source, info: MapInfo, settings: Settings) -> None:
    """Prepare a worker process for :func:`work`."""
    global _maker
    _maker = TileMaker(source, info, settings)


def work(place: Place) -> Made:
    """Make one tile in a worker process."""
    assert _maker is not None
    return _maker.make(place)

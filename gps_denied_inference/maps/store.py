"""A finished map, as localization reads it."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gps_denied_inference.errors import InvalidParameterError, MapError, StorageError, one_line
from gps_denied_inference.maps.codec import Encoded, decode, whole_descriptor
from gps_denied_inference.maps.descriptor import DIM
from gps_denied_inference.maps.schema import (
    BLOBS,
    content_hash,
    read_codebook,
    read_info,
    read_meta,
    read_places,
    refuse_special,
    storage,
)
from gps_denied_inference.maps.tiles import MapInfo, Place, StoredTile
from gps_denied_inference.pipeline.features import Features, FloatArray

CACHED_TILES = 64
"""Tiles with their features that are kept."""


class MapStore:
    """A finished map, read-only; a ``TileSource`` of localization.

    Not thread-safe. Every tile is held against its hash when it is loaded.

    Args:
        path: of the map.

    Raises:
        MapError: it is no map, of another format, or not finished.
        StorageError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise StorageError(f"no map at {path}: prepare one with 'gdi map prepare'")
        refuse_special(path)
        # Of this map alone: caches of the class would keep it after it was closed.
        self.load = functools.lru_cache(maxsize=CACHED_TILES)(self._load)
        self.centres = functools.cache(self._centres)
        self.descriptors = functools.cache(self._descriptors)
        with storage(path, "open"):
            self._base = sqlite3.connect(
                f"{path.resolve().as_uri()}?mode=ro", uri=True, check_same_thread=False
            )
        try:
            self._info = read_info(self._base, path)
            self.sha256 = read_meta(self._base).get("content_sha256", "")
            if not self.sha256:
                raise MapError(
                    f"{path} is not finished: run the same 'gdi map prepare' again, it goes on"
                )
            found = read_codebook(self._base, path)
            if found is None:
                raise MapError(f"{path} is damaged: it has no codebook")
            self._descriptor = found
            self._places = read_places(self._base)
        except sqlite3.DatabaseError as error:
            self.close()
            raise MapError(f"{path} is damaged: {one_line(error)}") from error
        except BaseException:
            self.close()
            raise

    @property
    def info(self) -> MapInfo:
        """What holds for the whole map."""
        return self._info

    @property
    def tile_count(self) -> int:
        """Tiles of all levels."""
        return len(self._places)

    @property
    def skipped(self) -> dict[str, int]:
        """Places that show nothing, by reason."""
        rows = self._base.execute("SELECT reason, COUNT(*) FROM skipped GROUP BY reason")
        return {str(reason): int(count) for reason, count in rows}

    def places(self) -> list[tuple[Place, int]]:
        """Return every tile's place and number of features."""
        counts = dict(self._base.execute("SELECT id, count FROM tiles").fetchall())
        return [(place, counts[place.id]) for place in self._places.values()]

    def _centres(self, level: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Return the ids (N,) of a level's tiles and their centres (N, 2), m east and north."""
        gsd = self._gsd(level)
        chosen = [place for place in self._places.values() if place.level == level]
        ids = np.array([place.id for place in chosen], np.int64)
        half = np.array([0.5 * place.size * gsd for place in chosen])
        corners = np.array([[place.east, place.north] for place in chosen]).reshape(-1, 2)
        return ids, corners + np.column_stack([half, -half]) if len(chosen) else corners

    def _descriptors(self, level: int) -> tuple[npt.NDArray[np.int64], FloatArray]:
        """Return the ids (N,) of a level's tiles and their global descriptors (N, D)."""
        ids, _ = self.centres(level)
        query = "SELECT id, descriptor FROM tiles WHERE level = ?"
        try:
            rows = {id: whole_descriptor(data) for id, data in self._base.execute(query, (level,))}
            stacked = np.stack([rows[int(id)] for id in ids]) if len(ids) else np.zeros((0, DIM))
        except (sqlite3.DatabaseError, ValueError, TypeError, KeyError) as error:
            raise MapError(f"{self.path} is damaged: its descriptors: {one_line(error)}") from error
        return ids, np.asarray(stacked, np.float32)

    def describe(self, features: Features) -> FloatArray:
        """Return a view's global descriptor (D,), comparable with :meth:`descriptors`."""
        return self._descriptor.describe(features)

    def _load(self, id: int) -> StoredTile:
        """Return a tile with its features.

        Raises:
            MapError: there is no such tile, or a byte of it has changed.
        """
        place = self._places.get(id)
        if place is None:
            raise MapError(f"{self.path} has no tile {id}")
        query = f"SELECT {BLOBS} FROM tiles WHERE id = ?"
        try:
            row = Encoded(*self._base.execute(query, (id,)).fetchone())
            features, descriptor = decode(
                id, row, place.size, self._info.model, self._info.model_sha256
            )
        except (sqlite3.DatabaseError, ValueError, TypeError) as error:
            raise MapError(f"{self.path}: tile {id} is damaged: {one_line(error)}") from error
        except MapError as error:
            raise MapError(f"{self.path}: {error}") from error
        return StoredTile(
            place.id, place.level, place.row, place.column, place.east, place.north, place.gsd,
            place.size, place.size, features, descriptor,
        )  # fmt: skip

    def preload(self) -> None:
        """Load as many tiles as are kept: so much memory a search will take sooner or later.

        Raises:
            MapError: one of them is damaged.
        """
        for id in list(self._places)[:CACHED_TILES]:
            self.load(id)

    def verify(self) -> Iterator[int]:
        """Check every tile and the whole; yield each tile's id once it is checked.

        Raises:
            MapError: what is damaged.
        """
        for id in self._places:
            self._load(id)
            yield id
        try:
            found = content_hash(self._base, self._info)
        except (sqlite3.DatabaseError, ValueError, TypeError) as error:
            raise MapError(f"{self.path} is damaged: {one_line(error)}") from error
        if found != self.sha256:
            raise MapError(f"{self.path}: its content is not the one that was sealed")

    def close(self) -> None:
        """Give the file back, and what was kept of it. May be called more than once."""
        for cached in (self.load, self.centres, self.descriptors):
            cached.cache_clear()
        self._base.close()

    def _gsd(self, level: int) -> float:
        if not 0 <= level < len(self._info.levels):
            bound = f"in 0..{len(self._info.levels) - 1}"
            raise InvalidParameterError("level", level, bound)
        return self._info.levels[level]

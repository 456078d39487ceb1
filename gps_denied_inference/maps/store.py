"""A map on disk: one SQLite file.

Table ``meta`` holds what it is (``info``, ``format``, and once finished ``content_sha256``),
``tiles`` the features, ``skipped`` the places that show nothing. Every tile carries its own hash;
``content_sha256`` is the hash of all of them in order, so that the same map prepared twice, by
whatever number of processes and interruptions, has the same one.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import sqlite3
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from gps_denied_inference.errors import InvalidParameterError, MapError, StorageError
from gps_denied_inference.maps.codec import Encoded, decode, whole_descriptor
from gps_denied_inference.maps.describe import DIM
from gps_denied_inference.maps.tiles import MapInfo, Place, StoredTile
from gps_denied_inference.pipeline.features import FloatArray

APPLICATION_ID = 0x47444D50
"""``GDMP``, in the file's header."""
FORMAT = 1
CACHED_TILES = 64
_SCHEMA = f"""
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT};
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE tiles (
    id INTEGER PRIMARY KEY, level INTEGER NOT NULL, line INTEGER NOT NULL, col INTEGER NOT NULL,
    east REAL NOT NULL, north REAL NOT NULL, size INTEGER NOT NULL, count INTEGER NOT NULL,
    keypoints BLOB NOT NULL, scores BLOB NOT NULL, descriptors BLOB NOT NULL,
    descriptor BLOB NOT NULL, sha256 BLOB NOT NULL
);
CREATE TABLE skipped (id INTEGER PRIMARY KEY, reason TEXT NOT NULL);
"""
_PLACE = "id, level, line, col, east, north, size"
_BLOBS = "count, keypoints, scores, descriptors, descriptor, sha256"


class MapWriter:
    """Writes a map, and goes on with one that was interrupted.

    Args:
        path: of the map.
        info: what it is to be.

    Attributes:
        done: ids that need no more work.

    Raises:
        MapError: there is another map at ``path``, or a file that is none.
        StorageError: the file cannot be made or written.
    """

    def __init__(self, path: Path, info: MapInfo) -> None:
        self.path = path
        self.info = info
        _refuse_special(path)
        new = not path.exists() or path.stat().st_size == 0
        with _storage(path, "make"):
            self._base = sqlite3.connect(path, isolation_level=None, timeout=10.0)
        try:
            self._begin(new)
        except BaseException:
            self._base.close()
            raise

    def _begin(self, new: bool) -> None:
        with _storage(self.path, "write"):
            # The old content stays in a journal until the new one is on the disk: a process or
            # machine that dies leaves the one or the other.
            self._base.execute("PRAGMA journal_mode = DELETE")
            self._base.execute("PRAGMA synchronous = FULL")
            if new:
                values = {"info": self.info.to_json(), "format": str(FORMAT)}
                rows = ",".join(f"('{k}', '{v.replace(chr(39), chr(39) * 2)}')"
                                for k, v in values.items())  # fmt: skip
                self._base.executescript(
                    f"BEGIN; {_SCHEMA} INSERT INTO meta VALUES {rows}; COMMIT;"
                )
        found = _read_info(self._base, self.path)
        if found != self.info:
            raise MapError(
                f"{self.path} is another map ({_difference(found, self.info)}): choose another "
                "file for this one, or delete that one first"
            )
        self.done = _finished_ids(self._base)

    @property
    def content_sha256(self) -> str:
        """Hex, of the finished map; empty while it is not finished."""
        return _meta(self._base).get("content_sha256", "")

    def add(
        self, tiles: Iterable[tuple[Place, Encoded]], skipped: Iterable[tuple[Place, str]] = ()
    ) -> None:
        """Add tiles, and places that show nothing with the reason: all of them, or none.

        Raises:
            StorageError: the disk is full or cannot be written.
        """
        with _storage(self.path, "write"):
            self._base.execute("BEGIN IMMEDIATE")
            try:
                for place, row in tiles:
                    self._base.execute(
                        f"INSERT OR REPLACE INTO tiles ({_PLACE}, {_BLOBS}) VALUES "
                        "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                        (
                            place.id, place.level, place.row, place.column, place.east,
                            place.north, place.size, row.count, row.keypoints, row.scores,
                            row.descriptors, row.descriptor, row.sha256,
                        ),
                    )  # fmt: skip
                    self.done.add(place.id)
                for place, reason in skipped:
                    self._base.execute(
                        "INSERT OR REPLACE INTO skipped VALUES (?, ?)", (place.id, reason)
                    )
                    self.done.add(place.id)
                self._base.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._base.execute("ROLLBACK")
                raise

    def finish(self) -> str:
        """Seal the map; return the hex hash of its content.

        Raises:
            StorageError: the disk is full or cannot be written.
        """
        digest = content_hash(self._base, self.info)
        with _storage(self.path, "write"):
            self._base.execute(
                "INSERT OR REPLACE INTO meta VALUES ('content_sha256', ?)", (digest,)
            )
        return digest

    def close(self) -> None:
        """Give the file back."""
        self._base.close()

    def __enter__(self) -> MapWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


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
        _refuse_special(path)
        with _storage(path, "open"):
            self._base = sqlite3.connect(
                f"{path.resolve().as_uri()}?mode=ro", uri=True, check_same_thread=False
            )
        try:
            self._info = _read_info(self._base, path)
            self.sha256 = _meta(self._base).get("content_sha256", "")
            if not self.sha256:
                raise MapError(
                    f"{path} is not finished: run the same 'gdi map prepare' again, it goes on"
                )
            self._places = _places(self._base)
        except sqlite3.DatabaseError as error:
            self.close()
            raise MapError(f"{path} is damaged: {error}") from error
        except BaseException:
            self.close()
            raise
        self.load = functools.lru_cache(maxsize=CACHED_TILES)(self._load)

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

    @functools.lru_cache(maxsize=16)  # noqa: B019 - a store lives as long as its node is configured
    def centres(self, level: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Return the ids (N,) of a level's tiles and their centres (N, 2), m east and north."""
        gsd = self._gsd(level)
        chosen = [place for place in self._places.values() if place.level == level]
        ids = np.array([place.id for place in chosen], np.int64)
        half = np.array([0.5 * place.size * gsd for place in chosen])
        corners = np.array([[place.east, place.north] for place in chosen]).reshape(-1, 2)
        return ids, corners + np.column_stack([half, -half]) if len(chosen) else corners

    @functools.lru_cache(maxsize=16)  # noqa: B019
    def descriptors(self, level: int) -> tuple[npt.NDArray[np.int64], FloatArray]:
        """Return the ids (N,) of a level's tiles and their global descriptors (N, D)."""
        ids, _ = self.centres(level)
        query = "SELECT id, descriptor FROM tiles WHERE level = ?"
        rows = {id: whole_descriptor(data) for id, data in self._base.execute(query, (level,))}
        stacked = np.stack([rows[int(id)] for id in ids]) if len(ids) else np.zeros((0, DIM))
        return ids, np.asarray(stacked, np.float32)

    def _load(self, id: int) -> StoredTile:
        """Return a tile with its features.

        Raises:
            MapError: there is no such tile, or a byte of it has changed.
        """
        place = self._places.get(id)
        if place is None:
            raise MapError(f"{self.path} has no tile {id}")
        query = f"SELECT {_BLOBS} FROM tiles WHERE id = ?"
        try:
            row = Encoded(*self._base.execute(query, (id,)).fetchone())
            features, descriptor = decode(
                id, row, place.size, self._info.model, self._info.model_sha256
            )
        except (sqlite3.DatabaseError, ValueError, TypeError) as error:
            raise MapError(f"{self.path}: tile {id} is damaged: {error}") from error
        except MapError as error:
            raise MapError(f"{self.path}: {error}") from error
        return StoredTile(
            place.id, place.level, place.row, place.column, place.east, place.north, place.gsd,
            place.size, place.size, features, descriptor,
        )  # fmt: skip

    def verify(self) -> Iterator[int]:
        """Check every tile and the whole; yield each tile's id once it is checked.

        Raises:
            MapError: what is damaged.
        """
        for id in self._places:
            self._load(id)
            yield id
        if content_hash(self._base, self._info) != self.sha256:
            raise MapError(f"{self.path}: its content is not the one that was sealed")

    def close(self) -> None:
        """Give the file back."""
        self._base.close()

    def _gsd(self, level: int) -> float:
        if not 0 <= level < len(self._info.levels):
            bound = f"in 0..{len(self._info.levels) - 1}"
            raise InvalidParameterError("level", level, bound)
        return self._info.levels[level]


def content_hash(base: sqlite3.Connection, info: MapInfo) -> str:
    """Return the hex hash of a map's content."""
    digest = hashlib.sha256(info.to_json().encode())
    for row in base.execute(f"SELECT {_PLACE}, sha256 FROM tiles ORDER BY id"):
        digest.update(repr(row[:-1]).encode() + row[-1])
    for row in base.execute("SELECT id, reason FROM skipped ORDER BY id"):
        digest.update(repr(row).encode())
    return digest.hexdigest()


def _places(base: sqlite3.Connection) -> dict[int, Place]:
    levels = MapInfo.from_json(_meta(base)["info"]).levels
    query = f"SELECT {_PLACE} FROM tiles ORDER BY id"
    return {
        id: Place(id, level, row, column, east, north, levels[level], size)
        for id, level, row, column, east, north, size in base.execute(query)
    }


def _finished_ids(base: sqlite3.Connection) -> set[int]:
    query = "SELECT id FROM tiles UNION SELECT id FROM skipped"
    return {int(row[0]) for row in base.execute(query)}


def _meta(base: sqlite3.Connection) -> dict[str, str]:
    return dict(base.execute("SELECT key, value FROM meta").fetchall())


def _read_info(base: sqlite3.Connection, path: Path) -> MapInfo:
    try:
        application = base.execute("PRAGMA application_id").fetchone()[0]
        format = base.execute("PRAGMA user_version").fetchone()[0]
        if application != APPLICATION_ID:
            raise MapError(f"{path} is no map of gps_denied_inference")
        if format != FORMAT:
            raise MapError(
                f"{path} has map format {format}, this version reads {FORMAT}: prepare it again"
            )
        return MapInfo.from_json(_meta(base)["info"])
    except (sqlite3.DatabaseError, KeyError, TypeError, ValueError, RecursionError,
            InvalidParameterError) as error:  # fmt: skip
        raise MapError(f"{path} is no map of gps_denied_inference, or damaged: {error}") from error


def _difference(found: MapInfo, wanted: MapInfo) -> str:
    names = [name for name in vars(wanted) if getattr(found, name) != getattr(wanted, name)]
    return "; ".join(
        f"{name} {getattr(found, name)} there, {getattr(wanted, name)} asked for"
        for name in names[:3]
    )


def _refuse_special(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"cannot read map {path}: {error.strerror}") from error
    if not stat.S_ISREG(mode):
        raise StorageError(f"map {path} is no regular file")


@contextlib.contextmanager
def _storage(path: Path, doing: str) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        full = "disk is full" in str(error) or "disk I/O" in str(error)
        advice = "free space there or choose another folder" if full else "check folder and rights"
        raise StorageError(f"cannot {doing} map {path}: {error}; {advice}") from error

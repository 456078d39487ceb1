"""A map on disk: one SQLite file.

Table ``meta`` holds what it is (``info``, ``format``, ``codebook`` of the global descriptor, and
once finished ``content_sha256``), ``tiles`` the features, ``skipped`` the places that show nothing.
Every tile carries its own hash; ``content_sha256`` is the hash of all of them in order and of the
codebook, so that the same map prepared twice, by whatever number of processes and interruptions,
has the same one.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from gps_denied_inference.errors import InvalidParameterError, MapError, StorageError, one_line
from gps_denied_inference.maps.descriptor import GlobalDescriptor
from gps_denied_inference.maps.tiles import MAX_TILE_PX, MapInfo, Place
from gps_denied_inference.storage.files import require_regular

APPLICATION_ID = 0x47444D50
"""``GDMP``, in the file's header."""
FORMAT = 2
SCHEMA = f"""
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
PLACE = "id, level, line, col, east, north, size"
BLOBS = "count, keypoints, scores, descriptors, descriptor, sha256"


def content_hash(base: sqlite3.Connection, info: MapInfo) -> str:
    """Return the hex hash of a map's content."""
    digest = hashlib.sha256(info.to_json().encode())
    digest.update(read_meta(base).get("codebook", "").encode())
    for row in base.execute(f"SELECT {PLACE}, sha256 FROM tiles ORDER BY id"):
        digest.update(repr(row[:-1]).encode() + row[-1])
    for row in base.execute("SELECT id, reason FROM skipped ORDER BY id"):
        digest.update(repr(row).encode())
    return digest.hexdigest()


def read_places(base: sqlite3.Connection) -> dict[int, Place]:
    """Return every tile's place.

    Raises:
        MapError: a value that no place has.
    """
    levels = MapInfo.from_json(read_meta(base)["info"]).levels
    query = f"SELECT {PLACE} FROM tiles ORDER BY id"
    places = {}
    for id, level, row, column, east, north, size in base.execute(query):
        whole = all(isinstance(value, int) for value in (id, level, row, column, size))
        metres = all(isinstance(value, float) and math.isfinite(value) for value in (east, north))
        if not (whole and metres and 0 <= level < len(levels) and 0 < size <= MAX_TILE_PX):
            raise MapError(f"tile {id!r} is damaged: it lies nowhere; copy the map anew")
        places[id] = Place(id, level, row, column, east, north, levels[level], size)
    return places


def read_meta(base: sqlite3.Connection) -> dict[str, str]:
    """Return the table ``meta``."""
    return dict(base.execute("SELECT key, value FROM meta").fetchall())


def read_codebook(base: sqlite3.Connection, path: Path) -> GlobalDescriptor | None:
    """Return what describes tiles and views; None where it is not made yet.

    Raises:
        MapError: it is damaged.
    """
    text = read_meta(base).get("codebook")
    try:
        return None if text is None else GlobalDescriptor.from_text(text)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise MapError(f"{path} is damaged: its codebook: {one_line(error)}") from error


def read_info(base: sqlite3.Connection, path: Path) -> MapInfo:
    """Return what holds for the whole map.

    Raises:
        MapError: the file is no map, or of another format.
    """
    try:
        application = base.execute("PRAGMA application_id").fetchone()[0]
        format = base.execute("PRAGMA user_version").fetchone()[0]
        if application != APPLICATION_ID:
            raise MapError(f"{path} is no map of gps_denied_inference")
        if format != FORMAT:
            raise MapError(
                f"{path} has map format {format}, this version reads {FORMAT}: prepare it again"
            )
        return MapInfo.from_json(read_meta(base)["info"])
    except (sqlite3.DatabaseError, KeyError, TypeError, ValueError, RecursionError,
            InvalidParameterError) as error:  # fmt: skip
        raise MapError(
            f"{path} is no map of gps_denied_inference, or damaged: {one_line(error)}"
        ) from error


def refuse_special(path: Path) -> None:
    """Raise StorageError unless there is nothing or a regular file."""
    if path.exists():
        require_regular(path)


@contextlib.contextmanager
def storage(path: Path, doing: str) -> Iterator[None]:
    """Turn what SQLite and the system report into StorageError."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        full = "disk is full" in str(error) or "disk I/O" in str(error)
        advice = "free space there or choose another folder" if full else "check folder and rights"
        raise StorageError(f"cannot {doing} map {path}: {one_line(error)}; {advice}") from error

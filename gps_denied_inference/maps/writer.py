"""Writing a map, in pieces and in any order."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from gps_denied_inference.errors import MapError
from gps_denied_inference.maps.codec import Encoded
from gps_denied_inference.maps.descriptor import GlobalDescriptor
from gps_denied_inference.maps.schema import (
    BLOBS,
    FORMAT,
    PLACE,
    SCHEMA,
    content_hash,
    read_codebook,
    read_info,
    read_meta,
    refuse_special,
    storage,
)
from gps_denied_inference.maps.tiles import MapInfo, Place, grid


class MapWriter:
    """Writes a map, and goes on with one that was interrupted.

    Args:
        path: of the map.
        info: what it is to be.

    Attributes:
        done: ids that need no more work.
        descriptor: what describes the map's tiles; None until :meth:`set_descriptor`.

    Raises:
        MapError: there is another map at ``path``, or a file that is none.
        StorageError: the file cannot be made or written.
    """

    def __init__(self, path: Path, info: MapInfo) -> None:
        self.path = path
        self.info = info
        refuse_special(path)
        with storage(path, "make"):
            self._base = sqlite3.connect(path, isolation_level=None, timeout=10.0)
        try:
            self._begin()
        except BaseException:
            self._base.close()
            raise

    def _begin(self) -> None:
        with storage(self.path, "write"):
            # The old content stays in a journal until the new one is on the disk: a process or
            # machine that dies leaves the one or the other.
            self._base.execute("PRAGMA journal_mode = DELETE")
            self._base.execute("PRAGMA synchronous = FULL")
            if self._is_empty():
                values = {"info": self.info.to_json(), "format": str(FORMAT)}
                rows = ",".join(f"('{k}', '{v.replace(chr(39), chr(39) * 2)}')"
                                for k, v in values.items())  # fmt: skip
                self._base.executescript(f"BEGIN; {SCHEMA} INSERT INTO meta VALUES {rows}; COMMIT;")
        found = read_info(self._base, self.path)
        if found != self.info:
            raise MapError(
                f"{self.path} is another map ({_difference(found, self.info)}): choose another "
                "file for this one, or delete that one first"
            )
        self.descriptor = read_codebook(self._base, self.path)
        self.done = _finished_ids(self._base, len(grid(self.info)))

    def _is_empty(self) -> bool:
        """Whether nothing is in the file, once a first write that was cut off is taken back."""
        try:
            return int(self._base.execute("PRAGMA page_count").fetchone()[0]) == 0
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:
            return False  # no SQLite at all: reading it says so

    @property
    def content_sha256(self) -> str:
        """Hex, of the finished map; empty while it is not finished."""
        return read_meta(self._base).get("content_sha256", "")

    def set_descriptor(self, descriptor: GlobalDescriptor) -> None:
        """Keep what describes the map's tiles, before the first tile.

        Raises:
            StorageError: the disk is full or cannot be written.
        """
        with storage(self.path, "write"):
            self._base.execute("INSERT INTO meta VALUES ('codebook', ?)", (descriptor.to_text(),))
        self.descriptor = descriptor

    def add(
        self, tiles: Iterable[tuple[Place, Encoded]], skipped: Iterable[tuple[Place, str]] = ()
    ) -> None:
        """Add tiles, and places that show nothing with the reason: all of them, or none.

        Raises:
            StorageError: the disk is full or cannot be written.
        """
        with storage(self.path, "write"):
            self._base.execute("BEGIN IMMEDIATE")
            try:
                for place, row in tiles:
                    self._base.execute(
                        f"INSERT OR REPLACE INTO tiles ({PLACE}, {BLOBS}) VALUES "
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
        with storage(self.path, "write"):
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


class Done:
    """Ids of finished places, a byte each."""

    def __init__(self, most: int) -> None:
        self._flags = bytearray(most)
        self._count = 0

    def __contains__(self, id: object) -> bool:
        return isinstance(id, int) and 0 <= id < len(self._flags) and bool(self._flags[id])

    def __len__(self) -> int:
        return self._count

    def add(self, id: int) -> None:
        """Add an id below the most there can be."""
        self._count += not self._flags[id]
        self._flags[id] = 1


def _finished_ids(base: sqlite3.Connection, most: int) -> Done:
    done = Done(most)
    for table in ("tiles", "skipped"):
        for (id,) in base.execute(f"SELECT id FROM {table} WHERE id >= 0 AND id < ?", (most,)):
            done.add(int(id))
    return done


def _difference(found: MapInfo, wanted: MapInfo) -> str:
    names = [name for name in vars(wanted) if getattr(found, name) != getattr(wanted, name)]
    return "; ".join(
        f"{name} {getattr(found, name)} there, {getattr(wanted, name)} asked for"
        for name in names[:3]
    )

"""PMTiles: Web Mercator tiles in one file; the only module that imports pmtiles."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gps_denied_inference.errors import ConfigurationError, MapError, StorageError
from gps_denied_inference.maps.sources.gdal import fingerprint

_DEPTH = 4
"""Levels of directories; the format's own limit is three."""
_MAX_TILE_BYTES = 1 << 24


class PmTiles:
    """A PMTiles file."""

    def __init__(self, path: Path) -> None:
        try:
            from pmtiles.reader import MmapSource, Reader
            from pmtiles.tile import Compression, TileType, deserialize_directory
        except ImportError as error:
            raise ConfigurationError(
                f"PMTiles need the package pmtiles ({error}): python3 -m pip install pmtiles"
            ) from error
        self.name = path.name
        self.sha256 = fingerprint(path)
        self._directory: Any = deserialize_directory
        self._index: dict[int, tuple[int, int, int, int]] = {}
        try:
            self._file = path.open("rb")
            self._source: Any = MmapSource(self._file)
            self._reader: Any = Reader(self._source)
            self._header = header = self._reader.header()
            metadata = self._reader.metadata()
            if header["tile_type"] in (TileType.PNG, TileType.JPEG, TileType.WEBP):
                self._spans(header["root_offset"], header["root_length"])
        except OSError as error:
            raise StorageError(f"cannot read map source {path}: {error.strerror}") from error
        except Exception as error:
            raise MapError(f"{path} is no PMTiles file: {error}") from error
        if not self._index:
            self._file.close()
            raise MapError(f"{path} holds no PNG, JPEG or WebP tiles: a map needs images")
        self._packed = header["tile_compression"] == Compression.GZIP
        self.attribution = str(metadata.get("attribution", "")) if metadata else ""

    def index(self) -> dict[int, tuple[int, int, int, int]]:
        """See :class:`~.web_tiles.Backend`; from the directories, the header need not tell."""
        return self._index

    def _spans(self, offset: int, length: int, depth: int = 0) -> None:
        if depth > _DEPTH:
            raise ValueError("directories nest too deeply")
        for entry in self._directory(self._source(offset, length)):
            if entry.run_length == 0:
                leaf = self._header["leaf_directory_offset"] + entry.offset
                self._spans(leaf, entry.length, depth + 1)
                continue
            for zoom, west, east, north, south in squares(entry.tile_id, entry.run_length):
                found = self._index.get(zoom, (west, east, north, south))
                self._index[zoom] = (
                    min(west, found[0]), max(east, found[1]),
                    min(north, found[2]), max(south, found[3]),
                )  # fmt: skip

    def tile(self, zoom: int, x: int, y: int) -> bytes | None:
        """See :class:`~.web_tiles.Backend`."""
        data = self._reader.get(zoom, x, y)
        if data is None or not self._packed:
            return None if data is None else bytes(data)
        try:
            return zlib.decompressobj(wbits=31).decompress(data, _MAX_TILE_BYTES)
        except zlib.error as error:
            raise MapError(f"{self.name}: tile {zoom}/{x}/{y} is damaged: {error}") from error

    def close(self) -> None:
        """See :class:`~.web_tiles.Backend`."""
        self._file.close()


def squares(first: int, count: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield zoom, west, east, north and south of the squares that a run of tile ids is.

    Ids follow a Hilbert curve zoom by zoom: each aligned run of 4^k of them is a square of 2^k.
    """
    from pmtiles.tile import tileid_to_zxy

    while count > 0:
        zoom, x, y = tileid_to_zxy(first)
        base = (4**zoom - 1) // 3
        k = 0
        while k < zoom and (first - base) % 4 ** (k + 1) == 0 and 4 ** (k + 1) <= count:
            k += 1
        west, north = x >> k << k, y >> k << k
        side = (1 << k) - 1
        yield zoom, west, west + side, north, north + side
        first, count = first + 4**k, count - 4**k

"""Preparation on the workers of a Dask cluster; the only module that imports Dask."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from gps_denied_inference.errors import ConfigurationError
from gps_denied_inference.maps.prepare import Made, Source, TileMaker
from gps_denied_inference.maps.tiles import MapInfo, Place
from gps_denied_inference.settings import Settings

CHUNK = 8
"""Tiles that a worker makes at a time."""
_CONNECT_LIMIT = "15s"


def make_on_cluster(
    address: str, source: Source, info: MapInfo, settings: Settings, todo: list[Place]
) -> Iterator[Made]:
    """Make tiles on a cluster, in whatever order they come.

    Raises:
        ConfigurationError: Dask is not installed, or nobody answers at ``address``.
    """
    try:
        from distributed import Client, as_completed
    except ImportError as error:
        raise ConfigurationError(
            f"--dask needs Dask ({error}): python3 -m pip install 'dask[distributed]'"
        ) from error
    try:
        client: Any = Client(address, timeout=_CONNECT_LIMIT)
    except (OSError, ValueError, TimeoutError) as error:
        raise ConfigurationError(f"no Dask scheduler answers at '{address}': {error}") from error
    with client:
        chunks = [todo[start : start + CHUNK] for start in range(0, len(todo), CHUNK)]
        futures = [
            client.submit(_make_chunk, source, info, settings, chunk, pure=False)
            for chunk in chunks
        ]
        for future in as_completed(futures):
            yield from future.result()
            future.release()


_makers: dict[str, TileMaker] = {}
_lock = threading.Lock()


def _make_chunk(
    source: Source, info: MapInfo, settings: Settings, chunk: list[Place]
) -> list[Made]:
    """Make some tiles on a worker; it keeps raster and engine for the next."""
    key = f"{source} {info.to_json()}"
    with _lock:  # one engine a worker, whatever its number of threads
        if key not in _makers:
            for old in _makers.values():
                old.close()
            _makers.clear()
            _makers[key] = TileMaker(source, info, settings)
        return [_makers[key].make(place) for place in chunk]

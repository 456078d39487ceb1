"""Preparation on the workers of a Dask cluster; the only module that imports Dask."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from typing import Any

from gps_denied_inference.errors import ConfigurationError
from gps_denied_inference.maps.making import Made, TileMaker
from gps_denied_inference.maps.tiles import Place
from gps_denied_inference.maps.workers import AHEAD, Work, chunks

_CONNECT_LIMIT = "15s"


def make_on_cluster(address: str, work: Work, todo: Iterator[Place]) -> Iterator[Made]:
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
        workers = len(client.scheduler_info(n_workers=-1)["workers"])
        if workers == 0:
            raise ConfigurationError(f"the Dask scheduler at '{address}' has no workers")
        shared = client.scatter(work, broadcast=True)
        parts = chunks(todo)
        running: Any = as_completed([])
        for part in itertools.islice(parts, AHEAD * workers):
            running.add(client.submit(_make_chunk, shared, part, pure=False))
        for future in running:
            yield from future.result()
            future.release()
            for part in itertools.islice(parts, 1):
                running.add(client.submit(_make_chunk, shared, part, pure=False))


_makers: dict[str, TileMaker] = {}
_lock = threading.Lock()


def _make_chunk(work: Work, chunk: list[Place]) -> list[Made]:
    """Make some tiles on a worker; it keeps raster and engine for the next."""
    key = f"{work.source} {work.settings} {work.info.to_json()}"
    with _lock:  # one engine a worker, whatever its number of threads
        if key not in _makers:
            for old in _makers.values():
                old.close()
            _makers.clear()
            _makers[key] = TileMaker(work.source, work.info, work.settings)
        return [_makers[key].make(place, work.descriptor) for place in chunk]

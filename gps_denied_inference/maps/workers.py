"""Who makes the tiles: this process or several, with a bounded number of tiles on the way."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

from gps_denied_inference.errors import ConfigurationError, GpsDeniedInferenceError
from gps_denied_inference.maps.descriptor import GlobalDescriptor
from gps_denied_inference.maps.making import Made, Source, TileMaker
from gps_denied_inference.maps.tiles import MapInfo, Place
from gps_denied_inference.settings import Settings

CHUNK = 8
"""Tiles that a worker makes at a time."""
AHEAD = 2
"""Chunks on the way for each worker: enough that none idles, few enough for memory."""


@dataclass(frozen=True)
class Work:
    """What a worker has to know.

    Attributes:
        source: the raster.
        info: of the map.
        settings: of the engine.
        descriptor: of the map's tiles.
    """

    source: Source
    info: MapInfo
    settings: Settings
    descriptor: GlobalDescriptor


def chunks(places: Iterator[Place]) -> Iterator[list[Place]]:
    """Split places into what a worker does at a time."""
    while chunk := list(itertools.islice(places, CHUNK)):
        yield chunk


def make_here(work: Work, todo: Iterator[Place]) -> Iterator[Made]:
    """Make tiles in this process."""
    maker = TileMaker(work.source, work.info, work.settings)
    try:
        for place in todo:
            yield maker.make(place, work.descriptor)
    finally:
        maker.close()


def make_in_processes(work: Work, todo: Iterator[Place], jobs: int) -> Iterator[Made]:
    """Make tiles in so many processes, in whatever order they come.

    Raises:
        ConfigurationError: a process ended.
        GpsDeniedInferenceError: what one of them met.
    """
    context = multiprocessing.get_context("spawn")  # forked vendor libraries hang
    waiting: set[Future[list[Made]]] = set()
    with ProcessPoolExecutor(jobs, context, initializer=_begin, initargs=(work,)) as pool:
        try:
            for chunk in chunks(todo):
                waiting.add(pool.submit(_make, chunk))
                if len(waiting) >= AHEAD * jobs:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield from future.result()
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield from future.result()
        except BrokenProcessPool as error:
            raise ConfigurationError(
                f"a worker process ended ({error}): out of memory? Run the same command again "
                "with fewer --jobs, it goes on"
            ) from error
        finally:
            for future in waiting:
                future.cancel()


_work: Work | None = None
_maker: TileMaker | None = None
_refusal: Exception | None = None


def _begin(work: Work) -> None:
    """Prepare a worker process for :func:`_make`."""
    global _work, _maker, _refusal
    # One whose parent was killed would wait for work for ever.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _work, _maker = work, TileMaker(work.source, work.info, work.settings)
    except GpsDeniedInferenceError as error:
        _refusal = error  # from here it would only be logged and break the pool


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _make(chunk: list[Place]) -> list[Made]:
    if _refusal is not None:
        raise _refusal
    assert _work is not None
    assert _maker is not None
    return [_maker.make(place, _work.descriptor) for place in chunk]

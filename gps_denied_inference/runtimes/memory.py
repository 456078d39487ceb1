"""Memory that was freed goes back to the system. Only glibc keeps it; elsewhere nothing happens.

Loading an engine and searching a map take and free much memory in many sizes. glibc keeps an arena
for every few threads, gives back the end of none but the first, and uses anew what lies between
blocks that live on: a process whose engines come and go grows with every configure.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Iterator

LARGE = 16 << 20
"""Bytes from which a block is mapped by itself, so that its memory goes back when it is freed.

More than the images and tensors of one frame, which are taken and freed at the camera's rate.
"""
KEPT = 64 << 20
"""Bytes at the end of the arena that are kept when they are freed: a frame takes them again."""
LASTING = 128 << 10
"""Bytes from which a block is mapped by itself while engines are loaded: weights and the engines'
own arenas stay as long as the engine, and go back whole with it."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_OF_THE_USER = ("MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
_one_arena = threading.Event()


def keep_to_one_arena() -> None:
    """Let all threads share one arena, and large blocks stay out of it.

    For the first line of a process that this package owns, before numpy and others begin threads:
    an arena that is there stays. What the user's environment says of arenas stays, too.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if "glibc.malloc." in tunables or any(name in os.environ for name in _OF_THE_USER):
        return
    _set(_M_ARENA_MAX, 1)
    _set(_M_MMAP_THRESHOLD, LARGE)
    _set(_M_TRIM_THRESHOLD, KEPT)
    _one_arena.set()


@contextlib.contextmanager
def apart_from_frames() -> Iterator[None]:
    """Map what is taken meanwhile by itself from :data:`LASTING` bytes on: for loading engines.

    Engines that come and go among the small blocks of frames would leave holes of every size. Only
    where :func:`keep_to_one_arena` set the thresholds; elsewhere they stay. What was freed goes
    back at the end.
    """
    if _one_arena.is_set():
        _set(_M_MMAP_THRESHOLD, LASTING)
    try:
        yield
    finally:
        if _one_arena.is_set():
            _set(_M_MMAP_THRESHOLD, LARGE)
        give_back_freed()


def give_back_freed() -> None:
    """Let the C library give back what was freed until now."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _set(option: int, value: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(option, value)

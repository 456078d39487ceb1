"""Where track ids come from."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import numpy.typing as npt


class IdSource:
    """Gives out 64-bit track ids, each once. One per process, so that two trackers or a node that
    is configured again never give an id twice."""

    def __init__(self, first: int = 1) -> None:
        self._next = itertools.count(first)
        self._lock = threading.Lock()

    def take(self, count: int) -> npt.NDArray[np.uint64]:
        """Return ``count`` fresh ids, ascending."""
        with self._lock:
            return np.fromiter(itertools.islice(self._next, count), np.uint64, count)


PROCESS_IDS = IdSource()

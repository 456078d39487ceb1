"""Threads of numpy and OpenCV, kept out of the runtime's way while engines are loaded.

What both are asked for here is small: more threads would wait for each other, and take the cores
from the runtime. What the user's environment says of them stays: ``OPENBLAS_NUM_THREADS``,
``OPENCV_FOR_THREADS_NUM``.
"""

from __future__ import annotations

import os
import threading

import cv2
import threadpoolctl

_lock = threading.Lock()
_holders = 0
_numpy: threadpoolctl.threadpool_limits | None = None
_opencv: int | None = None


def hold() -> None:
    """Let both libraries run on one thread, until every holder has let go."""
    global _holders, _numpy, _opencv
    with _lock:
        _holders += 1
        if _holders > 1:
            return
        if not os.environ.get("OPENBLAS_NUM_THREADS"):
            _numpy = threadpoolctl.threadpool_limits(1, user_api="blas")
        if not os.environ.get("OPENCV_FOR_THREADS_NUM"):
            _opencv = cv2.getNumThreads()
            cv2.setNumThreads(1)


def let_go() -> None:
    """Give the threads back with the last holder; once for each :func:`hold`."""
    global _holders, _numpy, _opencv
    with _lock:
        _holders -= 1
        if _holders > 0:
            return
        if _numpy is not None:
            _numpy.restore_original_limits()
        if _opencv is not None:
            cv2.setNumThreads(_opencv)
        _numpy = _opencv = None

"""Threads of numerical libraries beside the runtime's own."""

from __future__ import annotations

import os


def leave_cores_to_the_runtime() -> None:
    """Keep numpy's OpenBLAS to one thread, unless the user's environment says otherwise.

    Its idle threads spin on the cores that the forward pass needs: with nearest-neighbour tracking
    on two cores, extraction took 99 ms beside them and 50 ms without, and the one product per
    frame that they share is not even faster. OpenBLAS reads this once, so call it before numpy is
    imported.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

"""Memory that was freed goes back to the system."""

from __future__ import annotations

import contextlib
import ctypes


def give_back_freed() -> None:
    """Let the C library give freed memory back, where it is glibc; elsewhere nothing happens.

    glibc keeps what engines and searches freed, in an arena for each thread: without this, a
    process grows with every configure, and other programs of the computer go without.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)

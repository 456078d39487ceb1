"""Calls into a library that may never return, with an end to the waiting."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def within(seconds: float, call: Callable[[], Result], what: str) -> Result:
    """Return ``call()``, or stop waiting for it.

    The call goes on in a daemon thread when the time is over: Python cannot end it, but nobody
    waits for it any more.

    Args:
        seconds: how long to wait.
        call: runs in a thread of its own; the Exception that it raises is raised here.
        what: who it is, for the error.

    Raises:
        TimeoutError: ``call`` did not return in time.
        RuntimeError: ``call`` raised what is no Exception (SystemExit, KeyboardInterrupt): it was
            not meant for the thread that waits.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:  # noqa: BLE001 - handed to the waiting thread as it is
            errors.append(error)

    thread = threading.Thread(target=run, name=f"{what}-call", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors and not isinstance(errors[0], Exception):
        raise RuntimeError(f"{what} raised {type(errors[0]).__name__}") from errors[0]
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"{what} did not answer within {seconds:g} s")
    return results[0]

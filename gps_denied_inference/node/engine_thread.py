"""The one thread that the engine is used from, from configure to cleanup."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class EngineThread:
    """Runs calls one after another, in a thread of their own.

    Vendor libraries keep buffers and handles for each thread that they were called from: with a
    thread for each transition and each activation, GPU memory grew from cycle to cycle.

    Unlike ThreadPoolExecutor's, the thread is a daemon: a process that ends on an error while
    frames are being answered ends, and does not wait for a next frame.
    """

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    def submit(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Have ``function`` called after all that was submitted before."""
        result: Future[T] = Future()

        def call() -> None:
            try:
                result.set_result(function(*arguments))
            except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
                result.set_exception(error)

        self._calls.put(call)
        return result

    def close(self) -> None:
        """End the thread after what was submitted."""
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()

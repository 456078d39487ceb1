"""A thread that does all the calls of one engine, whichever thread asks for them.

Some libraries keep state per calling thread: ONNX Runtime captures a CUDA graph, and keeps cuBLAS
and cuDNN handles with it, for every thread that ever ran the session. A node loads in one thread,
infers in another and starts a new one on every activation, so without this each activation would
capture again and take more device memory. Handing a call over costs about 10 us.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class OwnedThread:
    """Runs calls one after the other on one thread of its own.

    Args:
        name: of the thread, for debuggers.
    """

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        # A daemon: a driver that never answers must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run ``function`` there and wait; its exception is raised here."""
        if not self._thread.is_alive():
            raise RuntimeError("the engine's thread has ended")
        # A queue per call: an answer that nobody waits for (KeyboardInterrupt in the caller) must
        # not be taken for that of the next call.
        answers: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

        def run() -> None:
            try:
                answers.put((function(*arguments), None))
            except BaseException as error:  # noqa: BLE001 - raised again in the caller
                answers.put((None, error))

        self._calls.put(run)
        result, error = answers.get()
        if error is not None:
            try:
                raise error
            finally:
                del error  # the traceback refers to this frame
        return result  # type: ignore[return-value]

    def close(self) -> None:
        """End the thread after the calls that are under way."""
        self._calls.put(None)
        self._thread.join()

    def _work(self) -> None:
        while True:
            run = self._calls.get()
            if run is None:
                return
            run()
            del run  # while waiting, nothing of the last call is kept alive

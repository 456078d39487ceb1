"""A thread that does all the calls of one engine, whichever thread asks for them.

Vendor libraries keep state for each thread that they were called from: ONNX Runtime a captured CUDA
graph with its cuBLAS and cuDNN handles, PyTorch its buffers. With a thread for each transition and
each activation, device memory would grow from cycle to cycle.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class SerialThread:
    """Runs calls one after the other on one thread of its own.

    Unlike ThreadPoolExecutor's, the thread is a daemon: a driver that never answers, or frames that
    still come in, must not keep the process from ending.

    Args:
        name: of the thread, for debuggers.
    """

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._closed = False
        self._thread.start()

    @property
    def native_id(self) -> int:
        """The thread's number in the system."""
        assert self._thread.native_id is not None  # it was started
        return self._thread.native_id

    def submit(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Have ``function`` called after all that was submitted before.

        Raises:
            RuntimeError: the thread was closed.
        """
        if self._closed:
            raise RuntimeError(f"the thread '{self._thread.name}' has ended")
        future: Future[T] = Future()
        self._calls.put(_Call(future, function, arguments))
        return future

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run ``function`` there and wait; its exception is raised here.

        Raises:
            RuntimeError: the thread was closed.
        """
        future = self.submit(function, *arguments)
        try:
            return future.result()
        finally:
            del future  # a raised exception's traceback refers to this frame

    def close(self, *, wait: bool = True) -> None:
        """End the thread after what was submitted; ``wait`` until it has ended."""
        self._closed = True
        self._calls.put(None)
        if wait:
            self._thread.join()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call.run()
            del call  # while waiting, nothing of the last call is kept alive


class _Call:
    def __init__(
        self, future: Future[Any], function: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> None:
        self._future, self._function, self._arguments = future, function, arguments

    def run(self) -> None:
        if not self._future.set_running_or_notify_cancel():
            return
        try:
            result = self._function(*self._arguments)
        except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
            self._future.set_exception(error)
            # The traceback refers to this frame, and the future to the exception.
            del self
        else:
            self._future.set_result(result)

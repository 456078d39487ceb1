"""An executor that bears entities which a transition destroys, hands each callback over once, and
ends without a loose end."""

from __future__ import annotations

import threading
from concurrent import futures
from typing import Any

from rclpy.context import Context
from rclpy.exceptions import InvalidHandle
from rclpy.executors import Executor, ShutdownException, TimeoutException

ROW_LIMIT = 100
"""So many lost turns in a row are no race any more."""


class _HandedOver:
    """A callback in the hands of the pool."""

    def __init__(self, task: Any) -> None:
        self.task = task
        self.begun = threading.Event()

    def __call__(self) -> None:
        self.begun.set()
        self.task()


class NodeExecutor(Executor):
    """Runs callbacks in a pool of threads, like rclpy's MultiThreadedExecutor, but for three races.

    rclpy offers a callback again and again until a thread has begun it. Its own executor submits it
    each time, without a pause, and so keeps the interpreter's lock from the very thread that is to
    begin. With a camera at 30 Hz that took most of a core, and beside a GPU, on 16 cores, the node
    answered four frames a second. Here a callback is handed over once, and the next turn waits
    until it has begun.

    rclpy lists what to wait for, then takes hold of each entry. A publisher or subscription whose
    QoS events are on that list may be destroyed in between by a cleanup, and rclpy (jazzy, kilted)
    then raises InvalidHandle, which would end the process. The entity is gone from the next list,
    so such a turn is lost and no more.

    rclpy's ``shutdown`` does not wait for callbacks that still run, whatever its timeout, and
    destroys the guard condition that each of them triggers: they fail, and the process ends with
    "The following exception was never retrieved: cannot use Destroyable because destruction was
    requested". Here they are waited for.

    Args:
        num_threads: callbacks that run at a time.
        context: of the nodes; None = the default one.
    """

    def __init__(self, num_threads: int, *, context: Context | None = None) -> None:
        super().__init__(context=context)
        self._pool = futures.ThreadPoolExecutor(num_threads, thread_name_prefix="ros")
        self._running: dict[futures.Future[Any], _HandedOver] = {}
        self._lost = 0

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Wait at most ``timeout_sec`` s for one callback and start it.

        Raises:
            ExternalShutdownException: the context was shut down.
            InvalidHandle: it came in ``ROW_LIMIT`` turns without a good one between.
            Exception: what a callback raised, in a turn after it.
        """
        try:
            self._turn(timeout_sec)
        except InvalidHandle:
            self._lost += 1
            if self._lost >= ROW_LIMIT:
                raise
        else:
            self._lost = 0

    def _turn(self, timeout_sec: float | None) -> None:
        try:
            task, _, _ = self.wait_for_ready_callbacks(timeout_sec)
        except (TimeoutException, ShutdownException):
            return
        handed = next((one for one in self._running.values() if one.task is task), None)
        if handed is None:
            handed = _HandedOver(task)
            self._running[self._pool.submit(handed)] = handed
        # While all threads are taken (a transition may take minutes) nothing else could run anyway.
        handed.begun.wait(timeout_sec)
        for future in [future for future in self._running if future.done()]:
            finished = self._running.pop(future).task
            if (error := future.exception()) is not None:
                # rclpy keeps an Exception with the task; SystemExit and KeyboardInterrupt end up
                # with the thread, and the task would seem to wait for something for ever.
                raise RuntimeError(f"a callback raised {type(error).__name__}") from error
            if finished.done():  # one that awaits something comes up again
                finished.result()

    def shutdown(self, timeout_sec: float | None = None) -> bool:
        """Start no more callbacks, and wait for those that were started.

        Args:
            timeout_sec: s to wait; None = for ever.

        Returns:
            False if some still run after that time.

        Raises:
            Exception: what one of them raised.
        """
        _, late = futures.wait(self._running, timeout_sec)
        self._pool.shutdown(wait=False)
        ended = super().shutdown(timeout_sec)
        for task in (one.task for one in self._running.values()):
            error = task.exception() if task.done() else None
            if error is not None and not isinstance(error, InvalidHandle):
                raise error
        self._running.clear()
        return ended and not late

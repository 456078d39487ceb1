"""Notices forward passes that hang or fail again and again, says so, and begins anew."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lifecycle_msgs.msg import State

from gps_denied_inference.errors import ConfigurationError
from gps_denied_inference.node.frame_worker import FrameWorker
from gps_denied_inference.node.rclpy_compat import lifecycle_state
from gps_denied_inference.node.transitions import described
from gps_denied_inference.pipeline.task_health import Finding
from gps_denied_inference.runtimes.stopwatch import Stopwatch
from gps_denied_inference.session import InferenceSession
from gps_denied_inference.settings import Settings

if TYPE_CHECKING:
    from gps_denied_inference.node.localization import Localization

EXIT_CODE = 75
"""Of a process that ends because only another process can help (EX_TEMPFAIL of sysexits.h)."""

PAUSES = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""s before each restart in a row; after the last one the process ends."""

STEADY = 30.0
"""s active without a fault after which the next restart is the first again."""

PERIOD = 0.05
"""s between looks."""

LEAVING = 1.0
"""s that a forward pass gets to come back once the process is asked to end."""

PATIENCE = 5.0
"""s that deactivate waits for a forward pass where ``infer_timeout`` is 0."""

INFER_HANGS, SEARCH_HANGS = "infer hangs", "search hangs"
"""Causes: a forward pass of the frames, one of the search on the map."""


class Recovery:
    """Looks at the forward passes while the node is active.

    Args:
        node: the lifecycle node; its ``transit`` runs transitions, ``interrupted`` is set when the
            process is asked to end.
        settings: returns the newest settings.
        publish: publishes the status.

    Attributes:
        fault: what is wrong with the forward passes; None = nothing.
        restarts: since the process began.
        is_running: True from a fault until the node is active again, or that is given up.
    """

    def __init__(
        self, node: Any, settings: Callable[[], Settings], publish: Callable[[], None]
    ) -> None:
        self._node = node
        self._settings = settings
        self._publish = publish
        self._ended = threading.Event()
        self._passes: Stopwatch | None = None
        self._searches: Stopwatch | None = None
        self._in_a_row = 0
        self.fault: Finding | None = None
        self.restarts = 0
        self.is_running = False

    def begin(
        self, worker: FrameWorker, session: InferenceSession, search: Localization | None = None
    ) -> None:
        """Look after ``worker`` from now, and after the ``search`` on a map where there is one."""
        self._ended = threading.Event()
        self._passes = Stopwatch(session, worker.thread_id)
        self._searches = None if search is None else Stopwatch(search, search.thread_id)
        self.fault = None
        threading.Thread(
            target=self._watch, args=(worker, session, self._ended), name="watchdog", daemon=True
        ).start()

    def end(self) -> None:
        """Look no more."""
        self._ended.set()
        if not self.is_running and self._node.exit_code == 0:
            self.fault = None

    def hung(self, waited: float) -> bool:
        """Return whether a forward pass that somebody waited for since ``waited`` s hangs."""
        return self._hangs(self._passes, INFER_HANGS, waited)

    def search_hung(self, waited: float) -> bool:
        """Return the same of a forward pass of the search on the map."""
        return self._hangs(self._searches, SEARCH_HANGS, waited)

    def _hangs(self, stopwatch: Stopwatch | None, cause: str, waited: float) -> bool:
        seconds = stopwatch.seconds() if stopwatch is not None else 0.0
        if seconds == 0.0:
            return False
        limit = self._settings().infer_timeout or PATIENCE
        if self._node.interrupted.is_set():
            limit = min(limit, LEAVING)
        known = self.fault is not None and self.fault.cause == cause
        return known or min(waited, seconds) >= limit

    def _watch(
        self, worker: FrameWorker, session: InferenceSession, ended: threading.Event
    ) -> None:
        begin, passes, searches = time.monotonic(), self._passes, self._searches
        assert passes is not None
        while not ended.wait(PERIOD):
            if time.monotonic() - begin > STEADY:
                self._in_a_row = 0
            searching = searches.seconds() if searches is not None else 0.0
            fault = self._judge(worker, passes.seconds(), searching, self._settings())
            if fault is None:
                if self.fault is not None:
                    self._node.get_logger().info(f"infer answers again, after: {self.fault.line}")
                    self.fault = None
                    self._publish()
                continue
            is_new, self.fault = self.fault is None, fault
            if is_new:
                self._node.get_logger().error(fault.line)
                self._publish()
            if self._settings().recovery != "off":
                with contextlib.suppress(ConfigurationError):
                    gpu = session.readback.device.startswith("cuda")
                    self._recover(fault, gpu, ended)
                return

    @staticmethod
    def _judge(
        worker: FrameWorker, seconds: float, searching: float, settings: Settings
    ) -> Finding | None:
        limit = settings.infer_timeout
        if 0.0 < limit <= seconds:
            return Finding(
                INFER_HANGS,
                f"infer hangs: a forward pass has not come back for {limit:g} s (infer_timeout)",
            )
        if 0.0 < limit <= searching:
            return Finding(
                SEARCH_HANGS,
                "search hangs: a forward pass of the search on the map has not come back for "
                f"{limit:g} s (infer_timeout)",
            )
        if 0 < settings.infer_failure_limit <= worker.failures_in_row:
            return Finding(
                "infer fails",
                f"infer fails: {settings.infer_failure_limit} forward passes in a row "
                f"(infer_failure_limit), the last with {worker.last_failure}",
            )
        return None

    def _recover(self, fault: Finding, gpu: bool, ended: threading.Event) -> None:
        node, begin = self._node, time.monotonic()
        if self._settings().recovery == "exit":
            self._exit(fault, "recovery is 'exit'")
            return
        if gpu and fault.cause in (INFER_HANGS, SEARCH_HANGS):
            self._exit(fault, "a GPU that hangs is freed by the end of the process only")
            return
        self.is_running = True
        try:
            if node.transit(node.trigger_deactivate, lambda: not ended.is_set()) is None:
                return  # somebody else deactivates
            self._restart(fault, begin)
        except BaseException as error:  # noqa: BLE001 - of a context that ends under it, too
            if node.context.ok():
                self._exit(fault, f"the restart broke: {described(error)}")
        finally:
            self.is_running = False

    def _restart(self, fault: Finding, begin: float) -> None:
        node = self._node
        while self._in_a_row < len(PAUSES):
            if self._is(State.PRIMARY_STATE_INACTIVE):
                node.transit(node.trigger_cleanup, lambda: self._is(State.PRIMARY_STATE_INACTIVE))
            pause = PAUSES[self._in_a_row]
            self._in_a_row += 1
            if node.interrupted.wait(pause):
                return
            done = node.transit(
                node.trigger_configure, lambda: self._is(State.PRIMARY_STATE_UNCONFIGURED)
            )
            if done:
                done = node.transit(
                    node.trigger_activate, lambda: self._is(State.PRIMARY_STATE_INACTIVE)
                )
            if done is None:
                node.get_logger().warning("recovery ends: the node was taken in hand by another")
                self.fault = None
                return
            if done:
                self.restarts += 1
                node.get_logger().warning(
                    f"recovered: active again {time.monotonic() - begin:.1f} s after: {fault.line} "
                    f"(restart {self._in_a_row} of {len(PAUSES)} in a row)"
                )
                return
        self._exit(fault, f"{len(PAUSES)} restarts in a row did not help")

    def _is(self, state: int) -> bool:
        return lifecycle_state(self._node)[0] == state

    def _exit(self, fault: Finding, why: str) -> None:
        self._node.exit_code = EXIT_CODE
        self.fault = fault
        self._node.get_logger().fatal(f"ending with exit code 75 for respawn: {why}; {fault.line}")
        self._publish()

"""The real node as a process of its own, driven through its lifecycle services."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from lifecycle_msgs.msg import Transition
from rclpy.executors import Executor
from rclpy.node import Node

from gps_denied_inference.clients.lifecycle_client import LifecycleClient
from gps_denied_inference.errors import ConfigurationError, InferenceError
from gps_denied_inference.msg import InferenceStatus

T = TypeVar("T")

NODE_NAME = "inference_node"
_START_TIMEOUT = 30.0
_CONFIGURE_TIMEOUT = 900.0  # building an engine may take minutes
_TRANSITION_TIMEOUT = 15.0
_EXIT_TIMEOUT = 5.0
_CODE = "import sys; from gps_denied_inference.node.process import main; sys.exit(main())"


class NodeProcess:
    """A child process that runs ``inference_node``, and this process's view of it.

    Use as a context manager: the child is ended however the block ends.

    Args:
        node: this process's node; the child runs in its namespace and ROS domain.
        executor: spins ``node``; it is spun here while waiting.
        parameters: of ``inference_node``, by name.
        log: file that takes what the child prints.
        on_status: called with every status that arrives.
    """

    def __init__(
        self,
        node: Node,
        executor: Executor,
        parameters: Mapping[str, object],
        log: Path,
        on_status: Callable[[InferenceStatus], None] = lambda status: None,
    ) -> None:
        self._log = log
        self.exit_code: int | None = None
        name = f"{node.get_namespace().rstrip('/')}/{NODE_NAME}"
        self._client = LifecycleClient(node, executor, name, on_status, self._check)
        command = [sys.executable, "-c", _CODE, "--ros-args"]
        command += ["-r", f"__ns:={node.get_namespace()}"]
        for parameter, value in parameters.items():
            command += ["-p", f"{parameter}:={_yaml(value)}"]
        # Set by the ROS wheels in this process: the child has to look for itself.
        environment = {k: v for k, v in os.environ.items() if k != "_ROS_WHEELS_BOOTSTRAP_COMPLETE"}
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, env=environment
            )

    def __enter__(self) -> NodeProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(_EXIT_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self.exit_code = self._process.wait()

    @property
    def status(self) -> InferenceStatus | None:
        """The newest status of the node; None until one came."""
        return self._client.status

    def _check(self) -> None:
        if (code := self._process.poll()) is not None:
            raise InferenceError(
                f"the node's process ended by itself with exit code {code}: {self._last_line()}"
            )

    def _last_line(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it printed nothing"

    def wait(self, condition: Callable[[], T], timeout: float) -> T | None:
        """Spin until ``condition()`` is true and return its value; None when time is up.

        Raises:
            InferenceError: the child has ended.
        """
        return self._client.wait(condition, timeout)

    def wait_until_up(self) -> None:
        """Wait for the lifecycle services.

        Raises:
            InferenceError: they did not come, or the child ended.
        """
        if self._client.missing_service(_START_TIMEOUT):
            raise InferenceError(
                f"the node did not offer its lifecycle services within {_START_TIMEOUT:g} s: "
                f"see {self._log}"
            )

    def configure(self) -> None:
        """Request configure; raises ConfigurationError with the node's own line when it fails."""
        if not self._request(Transition.TRANSITION_CONFIGURE, _CONFIGURE_TIMEOUT):
            # The line is in the status that follows; without one the log still has it.
            self.wait(lambda: self._client.detail, 2.0)
            line = self._client.detail or self._last_line()
            raise ConfigurationError(f"the node refused to start: {line}")

    def activate(self) -> None:
        """Request activate."""
        self._must(Transition.TRANSITION_ACTIVATE, "activate")

    def shut_down(self) -> int:
        """Deactivate, clean up, shut down, and return the exit code of the process.

        Raises:
            InferenceError: a transition was refused, or the process did not end.
        """
        self._must(Transition.TRANSITION_DEACTIVATE, "deactivate")
        self._must(Transition.TRANSITION_CLEANUP, "cleanup")
        # The process may end before its answer is out; that it ends with 0 is what counts.
        self._client.send(Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
        deadline = time.monotonic() + _EXIT_TIMEOUT
        while self._process.poll() is None and time.monotonic() < deadline:
            self._client.spin(0.05)
        if self._process.poll() is None:
            raise InferenceError(
                f"the node's process did not end within {_EXIT_TIMEOUT:g} s of its shutdown"
            )
        self.exit_code = self._process.wait()
        return self.exit_code

    def _must(self, transition: int, name: str) -> None:
        if not self._request(transition, _TRANSITION_TIMEOUT):
            raise InferenceError(
                f"the node refused to {name}: {self._client.detail or self._last_line()}"
            )

    def _request(self, transition: int, timeout: float) -> bool:
        succeeded = self._client.request(transition, timeout)
        if succeeded is None:
            raise InferenceError(
                f"the node did not answer a lifecycle request within {timeout:g} s: see {self._log}"
            )
        return succeeded


def _yaml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)

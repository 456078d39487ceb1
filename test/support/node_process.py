"""Drives a real ``inference_node`` process over real DDS, for the tests in this folder.

``NodeProcess`` owns the process: it starts it with a parameter file, keeps its output, sends it
signals and never leaves it behind. ``Driver`` is this side of the wire: the lifecycle services, a
camera and the node's topics. Both wait on facts (a service, a message, an exit) and fail with the
node's own output when a fact does not come.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import rclpy
import yaml
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import (
    DurabilityPolicy,
    QoSProfile,
    ReliabilityPolicy,
    qos_profile_sensor_data,
)
from sensor_msgs.msg import Image

from gps_denied_inference.msg import FeatureArray, InferenceStatus, ThermalState

ROOT = Path(__file__).resolve().parents[2]
EXECUTABLE = ROOT / "scripts" / "inference_node"
LATCHED = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
UNCONFIGURED = State.PRIMARY_STATE_UNCONFIGURED
INACTIVE = State.PRIMARY_STATE_INACTIVE
ACTIVE = State.PRIMARY_STATE_ACTIVE
FINALIZED = State.PRIMARY_STATE_FINALIZED
START_LIMIT = 60.0  # s; a loaded two-core machine takes seconds to import OpenCV and rclpy


LONG_TESTS = os.environ.get("GDI_LONG_TESTS") == "1"
"""Fly for a minute, and ask of a quiet machine that it keeps up."""


class NodeProcess:
    """One ``inference_node`` as its own process.

    Args:
        folder: where its parameter file and its log go.
        namespace: e.g. ``"/left"``; "" = the root.
        parameters: over the defaults.
        environment: over this process's own.
        program: what runs, instead of the package's executable.
        remappings: of its names.
    """

    def __init__(
        self,
        folder: Path,
        namespace: str = "",
        parameters: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        program: Path = EXECUTABLE,
        remappings: Mapping[str, str] | None = None,
    ) -> None:
        self.namespace = namespace
        self.full_name = f"{namespace}/inference_node"
        label = namespace.strip("/") or "root"
        parameter_file = folder / f"{label}.yaml"
        parameter_file.write_text(
            yaml.safe_dump({"/**": {"ros__parameters": dict(parameters or {})}}), encoding="utf-8"
        )
        self.log_file = folder / f"{label}.{time.monotonic_ns()}.log"
        command = [sys.executable, str(program), "--ros-args"]
        command += ["--params-file", str(parameter_file)]
        if namespace:
            command += ["-r", f"__ns:={namespace}"]
        for name, other in (remappings or {}).items():
            command += ["-r", f"{name}:={other}"]
        env = {**os.environ, "ROS_LOG_DIR": str(folder), "OMP_NUM_THREADS": "1"}
        env["XDG_CACHE_HOME"] = env.get("GDI_TEST_CACHE", str(folder / "cache"))
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**env, **(environment or {})},
                cwd=folder,
            )

    @property
    def output(self) -> str:
        """Everything that the process wrote so far."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        self.process.send_signal(number)

    def wait_for_exit(self, limit: float) -> int:
        """Return the exit code; fail when the process does not end within ``limit`` seconds."""
        try:
            return self.process.wait(limit)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{self.full_name} still runs {limit} s later; its output:\n{self.output}"
            ) from None

    def __enter__(self) -> NodeProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        if error is not None:
            print(f"--- output of {self.full_name}:\n{self.output}")


class Driver:
    """The other side of one node: services, camera and topics, each spun in a thread of its own."""

    def __init__(self, target: NodeProcess) -> None:
        self.target = target
        self.context = rclpy.Context()
        rclpy.init(context=self.context, args=[])
        self.node = rclpy.create_node(
            f"driver_{os.getpid()}_{time.monotonic_ns()}",
            namespace=target.namespace or "/",
            context=self.context,
        )
        self.features: list[FeatureArray] = []
        self.statuses: list[InferenceStatus] = []
        self.thermal: list[ThermalState] = []
        name = target.full_name
        self._change = self.node.create_client(ChangeState, f"{name}/change_state")
        self._get = self.node.create_client(GetState, f"{name}/get_state")
        self._set = self.node.create_client(SetParameters, f"{name}/set_parameters")
        self.node.create_subscription(FeatureArray, f"{name}/features", self.features.append, 100)
        self.node.create_subscription(
            InferenceStatus, f"{name}/status", self.statuses.append, LATCHED
        )
        self.node.create_subscription(
            ThermalState, f"{name}/thermal_state", self.thermal.append, LATCHED
        )
        self.camera = self.node.create_publisher(Image, "image", qos_profile_sensor_data)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        while not self._closing.is_set():
            self._executor.spin_once(timeout_sec=0.05)

    def close(self) -> None:
        """Leave DDS."""
        self._closing.set()
        self._thread.join(5)
        self._executor.shutdown(timeout_sec=1)
        self.node.destroy_node()
        self.context.try_shutdown()

    def wait_until(self, fact: Callable[[], bool], what: str, limit: float = 20.0) -> None:
        """Wait for a fact; fail with the node's output when it does not come in time."""
        end = time.monotonic() + limit
        while not fact():
            if time.monotonic() > end:
                raise AssertionError(
                    f"waited {limit} s in vain for {what}; the node's output:\n{self.target.output}"
                )
            time.sleep(0.01)

    def _call(self, client: Any, request: Any, what: str, limit: float) -> Any:
        # A status proves that this node lives: a service may still be seen of one that is gone.
        self.wait_until(
            lambda: (
                bool(self.statuses and client.service_is_ready())
                or self.target.process.poll() is not None
            ),
            f"the service {client.srv_name}",
            START_LIMIT,
        )
        if (code := self.target.process.poll()) is not None:
            raise AssertionError(
                f"the node ended with {code}, wanted {what}; its output:\n{self.target.output}"
            )
        future = client.call_async(request)
        self.wait_until(future.done, what, limit)
        return future.result()

    def state(self) -> int:
        """Return the node's primary state (``lifecycle_msgs/State``)."""
        return int(self._call(self._get, GetState.Request(), "an answer", 20.0).current_state.id)

    def transition(self, identifier: int, limit: float = 60.0) -> bool:
        """Request a transition; True when the node says that it succeeded."""
        request = ChangeState.Request()
        request.transition.id = identifier
        return bool(self._call(self._change, request, f"transition {identifier}", limit).success)

    def configure(self, limit: float = 120.0) -> bool:
        """Request configure, which may build an engine."""
        return self.transition(Transition.TRANSITION_CONFIGURE, limit)

    def activate(self) -> bool:
        """Request activate, and wait until the node's image subscription is there."""
        succeeded = self.transition(Transition.TRANSITION_ACTIVATE)
        if succeeded:
            self.wait_until(
                lambda: self.camera.get_subscription_count() > 0, "the image subscription"
            )
        return succeeded

    def deactivate(self) -> bool:
        """Request deactivate."""
        return self.transition(Transition.TRANSITION_DEACTIVATE)

    def cleanup(self) -> bool:
        """Request cleanup."""
        return self.transition(Transition.TRANSITION_CLEANUP)

    def shutdown(self) -> bool:
        """Request shutdown with the transition that fits the node's state."""
        return self.transition(
            {
                UNCONFIGURED: Transition.TRANSITION_UNCONFIGURED_SHUTDOWN,
                INACTIVE: Transition.TRANSITION_INACTIVE_SHUTDOWN,
                ACTIVE: Transition.TRANSITION_ACTIVE_SHUTDOWN,
            }[self.state()]
        )

    def set_parameter(self, name: str, value: ParameterValue) -> tuple[bool, str]:
        """Set one parameter; return whether the node took it, and its reason if not."""
        request = SetParameters.Request(parameters=[Parameter(name=name, value=value)])
        result = self._call(self._set, request, f"parameter {name}", 20.0).results[0]
        return bool(result.successful), str(result.reason)

    def frames_diagnostics(self) -> list[DiagnosticStatus]:
        """Collect what nodes' frames tasks say from now on."""
        heard: list[DiagnosticStatus] = []
        self.node.create_subscription(
            DiagnosticArray,
            "/diagnostics",
            lambda array: heard.extend(s for s in array.status if s.name.endswith(": frames")),
            50,
        )
        return heard

    def latest_status(self) -> InferenceStatus:
        """Return the newest status, waiting for the first one."""
        self.wait_until(lambda: bool(self.statuses), "a status")
        return self.statuses[-1]

    def wait_for_status(
        self, fact: Callable[[InferenceStatus], bool], what: str, limit: float = 20.0
    ) -> InferenceStatus:
        """Wait for a status, the newest or a later one, that has a property; return it."""
        found: list[InferenceStatus] = []
        since = max(0, len(self.statuses) - 1)

        def seen() -> bool:
            found.extend(status for status in self.statuses[since:] if fact(status))
            return bool(found)

        self.wait_until(seen, what, limit)
        return found[0]

    def wait_for_accounts(self, sent: int) -> InferenceStatus:
        """Wait until each of ``sent`` frames is answered or dropped, and for the answers.

        Returns:
            The status that says so.
        """
        status = self.wait_for_status(
            lambda s: s.frames_in == sent and s.frames_in == s.frames_out + s.frames_dropped,
            f"{self.target.full_name} to account for every frame that the camera sent",
        )
        self.wait_until(
            lambda: len(self.features) == status.frames_out, "an answer for each frame out"
        )
        return status

    def publish_until_answered(self, count: int, limit: float = 60.0) -> list[FeatureArray]:
        """Publish textured frames, each once the one before was answered; return the answers.

        A best-effort frame may be lost on the way: one that gets no answer for a second is
        followed by the next. ``count`` answers have to come within ``limit`` seconds.
        """
        answered = len(self.features)
        goal = answered + count
        end = time.monotonic() + limit
        frames = textured_frames()
        while len(self.features) < goal:
            if time.monotonic() > end:
                raise AssertionError(
                    f"{len(self.features) - answered} of {count} frames answered in {limit} s; "
                    f"the node's output:\n{self.target.output}"
                )
            before = len(self.features)
            self.camera.publish(image_message(next(frames), stamp=time.time_ns()))
            pause = time.monotonic() + 1.0
            while len(self.features) == before and time.monotonic() < pause:
                time.sleep(0.002)
        return self.features[answered:goal]


@contextmanager
def driven(
    folder: Path,
    namespace: str = "",
    parameters: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    program: Path = EXECUTABLE,
) -> Iterator[tuple[NodeProcess, Driver]]:
    """Run a node process and a driver for it; both are gone afterwards."""
    with NodeProcess(folder, namespace, parameters, environment, program) as process:
        driver = Driver(process)
        try:
            yield process, driver
        finally:
            driver.close()


def textured_frames(height: int = 240, width: int = 320) -> Iterator[np.ndarray[Any, Any]]:
    """Yield mono frames (height, width) uint8 with corners all over, each a little shifted."""
    rng = np.random.default_rng(7)
    coarse = rng.integers(0, 256, (height // 8 + 32, width // 8 + 32), dtype=np.uint8)
    # Not 8 pixels, XFeat's cells: squares that fill them exactly have no corner inside.
    big = np.kron(coarse, np.ones((9, 9), dtype=np.uint8))
    shift = 0
    while True:
        yield np.ascontiguousarray(big[shift : shift + height, shift : shift + width])
        shift = (shift + 3) % 200


def image_message(
    pixels: np.ndarray[Any, Any], stamp: int = 0, frame_id: str = "camera", encoding: str = "mono8"
) -> Image:
    """Wrap (H, W) or (H, W, C) uint8 pixels; ``stamp`` in ns."""
    message = Image()
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 1_000_000_000)
    message.header.frame_id = frame_id
    message.height, message.width = pixels.shape[:2]
    message.encoding = encoding
    message.step = pixels.strides[0]
    message.data = pixels.tobytes()
    return message

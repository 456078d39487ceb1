"""The autopilot link as a process, between a test's side of DDS and the stand-in autopilot."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from node_process import LATCHED, ROOT, NodeProcess
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import Imu, NavSatFix
from stand_in_autopilot import StandInAutopilot
from std_msgs.msg import Float64
from test_link import eventually, free_port

from gps_denied_inference.msg import AutopilotLinkStatus, LocalizationStatus

PROGRAM = ROOT / "scripts" / "autopilot_link"


class Client:
    """This side of DDS: the link's lifecycle, a localizer that publishes, what the link says."""

    def __init__(self) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, args=[])
        self.node = rclpy.create_node("link_test", context=self.context)
        self.heard: dict[str, list[Any]] = {}
        for name, kind, profile in (
            ("autopilot_link/status", AutopilotLinkStatus, LATCHED),
            ("prior/fix", NavSatFix, 10),
            ("prior/height", Float64, 10),
            ("imu", Imu, 10),
        ):
            kept = self.heard.setdefault(name, [])
            self.node.create_subscription(kind, name, kept.append, profile)
        self.fixes = self.node.create_publisher(NavSatFix, "fix", 10)
        self.status = self.node.create_publisher(LocalizationStatus, "localization_status", 10)
        self._change = self.node.create_client(ChangeState, "autopilot_link/change_state")
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._end = threading.Event()
        self._thread.start()

    def _spin(self) -> None:
        while not self._end.is_set():
            self._executor.spin_once(0.05)

    def change(self, transition: int, limit: float = 30.0) -> bool:
        assert self._change.wait_for_service(limit)
        done = threading.Event()
        future = self._change.call_async(ChangeState.Request(transition=Transition(id=transition)))
        future.add_done_callback(lambda _: done.set())
        assert done.wait(limit)
        return bool(future.result().success)

    def latest(self) -> AutopilotLinkStatus:
        eventually(lambda: bool(self.heard["autopilot_link/status"]), "a status", 10.0)
        message: AutopilotLinkStatus = self.heard["autopilot_link/status"][-1]
        return message

    def publish_fix(self, age: float = 0.05, sigma: float = 2.0, **changes: Any) -> None:
        message = NavSatFix(latitude=47.0, longitude=8.0, altitude=500.0, **changes)
        stamp = time.time_ns() - round(age * 1e9)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
        if "position_covariance" not in changes:
            message.position_covariance = [sigma**2, 0.0, 0.0, 0.0, sigma**2, 0.0, 0.0, 0.0, 9.0]
        message.position_covariance_type = NavSatFix.COVARIANCE_TYPE_KNOWN
        self.fixes.publish(message)

    def close(self) -> None:
        self._end.set()
        self._thread.join(5.0)
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@contextmanager
def flown(
    folder: Path, remappings: Mapping[str, str] | None = None, **parameters: Any
) -> Iterator[tuple[NodeProcess, Client, StandInAutopilot]]:
    port = free_port()
    values = {"autopilot_url": f"udp:127.0.0.1:{port}", "status_rate": 20.0, **parameters}
    with (
        StandInAutopilot(port) as autopilot,
        NodeProcess(folder, parameters=values, program=PROGRAM, remappings=remappings) as process,
    ):
        client = Client()
        try:
            yield process, client, autopilot
        finally:
            client.close()

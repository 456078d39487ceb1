"""Listens to a running node's ``~/status`` and ``~/thermal_state``."""

from __future__ import annotations

import time
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from gps_denied_inference.msg import InferenceStatus, ThermalState
from gps_denied_inference.node import qos


class StatusListener:
    """Keeps the newest status of a node. Use as a context manager.

    Args:
        name: full name of the node, e.g. ``"/drone1/inference_node"``.

    Attributes:
        status: the fields of the newest InferenceStatus; empty until one came.
        thermal: the fields of the newest ThermalState, None until one came.
        received: monotonic s, when the newest status came.
    """

    def __init__(self, name: str) -> None:
        self._name = "/" + name.strip("/")
        self._context = Context()
        self.status: dict[str, Any] = {}
        self.thermal: dict[str, Any] | None = None
        self.received = float("nan")

    def __enter__(self) -> StatusListener:
        rclpy.init(args=[], context=self._context)
        self._node = Node("gdi_top", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        subscribe = self._node.create_subscription
        subscribe(InferenceStatus, f"{self._name}/status", self._take_status, qos.STATE)
        subscribe(ThermalState, f"{self._name}/thermal_state", self._take_thermal, qos.STATE)
        return self

    def __exit__(self, *exception: object) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()

    def _take_status(self, message: InferenceStatus) -> None:
        self.status = fields(message)
        self.received = time.monotonic()

    def _take_thermal(self, message: ThermalState) -> None:
        self.thermal = fields(message)

    def spin(self, duration: float) -> None:
        """Take messages for ``duration`` s."""
        end = time.monotonic() + duration
        while (remaining := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=remaining)

    def wait(self, timeout: float) -> bool:
        """Wait for a first status; False when none came within ``timeout`` s."""
        end = time.monotonic() + timeout
        while not self.status and (remaining := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=remaining)
        return bool(self.status)


def fields(message: object) -> Any:
    """Return a message as a dict of its fields, messages within it likewise."""
    if hasattr(message, "get_fields_and_field_types"):
        return {
            name: fields(getattr(message, name)) for name in message.get_fields_and_field_types()
        }
    if isinstance(message, (str, bytes)) or not hasattr(message, "__iter__"):
        return message
    return [fields(item) for item in message]

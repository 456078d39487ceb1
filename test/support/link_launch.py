"""The launched pair of inference node and autopilot link, as its launch tests drive it."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from typing import Any

from launch.actions import GroupAction
from launch_parts import included, written
from lifecycle_msgs.srv import GetState
from localizing_process import PARAMETERS
from node_process import Driver
from simulated_map import scene_map

LINK = {
    "lost_after": 60.0, "max_speed": 1000.0, "max_fix_sigma": 2000.0, "max_fix_age": 5.0,
    "status_rate": 20.0,
}  # fmt: skip
"""The simulated flight is fast and high."""


@functools.cache
def engines() -> str:
    """Return an engine cache for every launch of this session."""
    return tempfile.mkdtemp(prefix="gdi_launch_test_")


def autopilot(port: int, **arguments: str) -> GroupAction:
    """Return the launch file of both nodes, for an autopilot that sends to this port."""
    parameters = {
        **PARAMETERS, "map_file": str(scene_map()), "engine_cache_directory": engines(),
    }  # fmt: skip
    return included(
        "autopilot.launch.py",
        params_file=str(written(parameters)),
        link_params_file=str(written(LINK)),
        autopilot_url=f"udp:127.0.0.1:{port}",
        **arguments,
    )


@dataclasses.dataclass(frozen=True)
class Graph:
    """Who writes and who reads a topic, by the names of nodes."""

    writers: frozenset[str]
    readers: frozenset[str]

    @classmethod
    def of(cls, driver: Driver, topic: str) -> Graph:
        def names(infos: list[Any]) -> frozenset[str]:
            return frozenset(f"{i.node_namespace.rstrip('/')}/{i.node_name}" for i in infos)

        return cls(
            names(driver.node.get_publishers_info_by_topic(topic)),
            names(driver.node.get_subscriptions_info_by_topic(topic)),
        )


def state_of(driver: Driver, node: str) -> int:
    """Return the primary state of a lifecycle node."""
    client = driver.node.create_client(GetState, f"{node}/get_state")
    try:
        driver.wait_until(client.service_is_ready, f"the services of {node}", 60.0)
        future = client.call_async(GetState.Request())
        driver.wait_until(future.done, f"the state of {node}")
        return int(future.result().current_state.id)
    finally:
        driver.node.destroy_client(client)

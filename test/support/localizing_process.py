"""The inference node with task localize as a process, and the simulated flight that it is shown."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from geometry_msgs.msg import PoseWithCovarianceStamped
from nav_msgs.msg import Odometry
from node_process import Driver, NodeProcess, driven, image_message
from sensor_msgs.msg import CameraInfo, NavSatFix, Range
from simulated_map import scene_map
from std_msgs.msg import Float64

from gps_denied_inference.demo.scene_map import ORIGIN, truth
from gps_denied_inference.demo.simulation import SimulatedFlight
from gps_denied_inference.maps.frame import LocalFrame
from gps_denied_inference.msg import LocalizationStatus

WIDTH, HEIGHT = 640, 480
PARAMETERS = {
    "task": "localize", "device": "cpu", "max_keypoints": 300, "warmup_iterations": 1,
    "fix_rate": 20.0, "status_rate": 10.0, "thermal_policy": False,
}  # fmt: skip


@dataclasses.dataclass
class Heard:
    """What the node said, and the flight that it was shown."""

    driver: Driver
    flight: SimulatedFlight
    fixes: list[NavSatFix]
    poses: list[PoseWithCovarianceStamped]
    odometry: list[Odometry]
    status: list[LocalizationStatus]
    index: int = 0
    ahead: float = 0.0
    """s that the camera's clock is ahead of this one."""
    most_ns: int = 0
    """ns between two frames at most, by the camera's clock; 0 = as it comes."""

    def publish(self, height: bool = True, image: np.ndarray | None = None) -> int:
        """Publish the next frame and what goes with it; return its stamp."""
        index, self.index = self.index, self.index + 1
        now = time.time_ns()
        self.clock = min(now, self.clock + self.most_ns) if self.stamps and self.most_ns else now
        stamp = self.clock + round(self.ahead * 1e9)
        if image is None:
            image = cv2.cvtColor(self.flight.render(index), cv2.COLOR_RGB2GRAY)
        info = CameraInfo(width=WIDTH, height=HEIGHT, distortion_model="plumb_bob")
        focal = 0.95 * WIDTH
        info.k = [focal, 0.0, (WIDTH - 1) / 2, 0.0, focal, (HEIGHT - 1) / 2, 0.0, 0.0, 1.0]
        self.info.publish(info)
        above = 1.04 * self.flight.pose(index).height
        if height and not self.ahead:
            self.height.publish(Float64(data=above))
        elif height:
            message = Range(range=above, min_range=0.0, max_range=1e5)
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
            self.range.publish(message)
        self.driver.camera.publish(image_message(image, stamp))
        self.stamps[stamp] = index
        return stamp

    def __post_init__(self) -> None:
        node = self.driver.node
        self.stamps: dict[int, int] = {}
        self.clock = 0
        self.info = node.create_publisher(CameraInfo, "camera_info", 10)
        self.height = node.create_publisher(Float64, "prior/height", 10)
        self.range = node.create_publisher(Range, "prior/range", 10)
        self.prior = node.create_publisher(NavSatFix, "prior/fix", 10)

    def step(self, **options: Any) -> LocalizationStatus:
        """Publish a frame and wait until it was searched; return what was said of it."""
        stamp = self.publish(**options)
        self.driver.wait_until(
            lambda: any(ns(s.header) == stamp for s in self.status), f"frame {self.index - 1}", 30.0
        )
        return next(s for s in self.status if ns(s.header) == stamp)

    def errors(self) -> list[float]:
        """Return how far each fix lies from the truth, m."""
        frame = LocalFrame(*ORIGIN)
        return [
            abs(complex(*frame.to_enu(f.latitude, f.longitude))
                - truth(self.flight, self.stamps[ns(f.header)]))
            for f in self.fixes
        ]  # fmt: skip


def ns(header: Any) -> int:
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)


@contextmanager
def localizing(
    folder: Path, namespace: str = "", **parameters: Any
) -> Iterator[tuple[NodeProcess, Heard]]:
    values = {**PARAMETERS, "map_file": str(scene_map()), **parameters}
    with driven(folder, namespace, values) as (process, driver):
        yield process, hearing(driver)


def hearing(driver: Driver) -> Heard:
    """Listen to a localizing node."""
    heard = Heard(driver, SimulatedFlight(frames=240), [], [], [], [])
    for kind, topic, kept in (
        (NavSatFix, "fix", heard.fixes),
        (PoseWithCovarianceStamped, "pose", heard.poses),
        (Odometry, "odometry", heard.odometry),
        (LocalizationStatus, "localization_status", heard.status),
    ):
        name = f"{driver.target.full_name}/{topic}"
        driver.node.create_subscription(kind, name, kept.append, 100)
    return heard

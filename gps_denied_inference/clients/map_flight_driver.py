"""Flies the simulated flight past the real node with task ``localize``, and hears where it is.

The node is told height, attitude and lens, each with errors, and never the position.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from nav_msgs.msg import Odometry
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image, Imu, NavSatFix, Range

from gps_denied_inference.clients.node_process import NODE_NAME, NodeProcess
from gps_denied_inference.clients.own_domain import frame_message, isolated_node, nanoseconds
from gps_denied_inference.demo.frame import Frame
from gps_denied_inference.demo.map_flight import MapFlight, Position
from gps_denied_inference.demo.scene_map import ORIGIN
from gps_denied_inference.demo.simulation import SimulatedFlight
from gps_denied_inference.errors import InferenceError
from gps_denied_inference.maps.frame import LocalFrame
from gps_denied_inference.msg import FeatureArray, LocalizationStatus
from gps_denied_inference.node import qos
from gps_denied_inference.pipeline.localization.attitude import LOOKING_DOWN, body_of
from gps_denied_inference.pipeline.localization.prior import heading_and_gravity

HEIGHT_ERROR = 0.04
"""Share that the height is told too large: a barometer's."""
TILT_SIGMA, HEADING_SIGMA = math.radians(0.5), math.radians(3.0)
PERIOD = 0.1
"""s between frames at least."""
SEARCHED = 4
"""Of so many frames one is waited for until it was searched: the slower the machine, the slower the
flight, and what is found stays the same."""
FIX_RATE = 100.0
"""Hz: whenever the search is free it takes the newest frame."""

_ANSWER_TIMEOUT = 3.0
_SEARCH_TIMEOUT = 20.0
_DISCOVERY_TIMEOUT = 15.0


def fly_over_map(
    flight: SimulatedFlight,
    map_file: Path,
    parameters: Mapping[str, object],
    log: Path,
    report: Callable[[str, int], None] = lambda what, fixes: None,
) -> MapFlight:
    """Run the node over every frame of the flight.

    Args:
        flight: over the map's scene.
        map_file: of :func:`~gps_denied_inference.demo.scene_map.make_scene_map`.
        parameters: of ``inference_node`` besides.
        log: file that takes what the node prints.
        report: told what is being done and the number of fixes.

    Raises:
        ConfigurationError: the node refused to configure.
        InferenceError: the node could not be driven, or ended by itself.
    """
    chosen = {
        **parameters, "task": "localize", "map_file": map_file, "fix_rate": FIX_RATE,
        "localization_priority": "low",  # this flight waits for its searches
    }  # fmt: skip
    with isolated_node() as (node, executor):
        return _Driver(node, executor, flight, report).run(chosen, log)


class _Driver:
    def __init__(
        self,
        node: Node,
        executor: SingleThreadedExecutor,
        flight: SimulatedFlight,
        report: Callable[[str, int], None],
    ) -> None:
        self._node, self._executor = node, executor
        self._flight, self._report = flight, report
        self._random = np.random.default_rng(5)
        self._frame = LocalFrame(*ORIGIN)
        self._stamps: dict[int, int] = {}  # ns: index
        self._answered: set[int] = set()
        self._searched: set[int] = set()
        self._first_fix: int | None = None
        self._fixes: list[Position] = []
        self._followed: list[Position] = []
        self._image = node.create_publisher(Image, "image", qos.DEMO_FRAMES)
        self._info = node.create_publisher(CameraInfo, "camera_info", qos.DEMO_FRAMES)
        self._range = node.create_publisher(Range, "prior/range", qos.PRIOR)
        self._imu = node.create_publisher(Imu, "imu", qos.PRIOR)
        for kind, topic, take in (
            (FeatureArray, "features", self._take_features),
            (NavSatFix, "fix", self._take_fix),
            (Odometry, "odometry", self._take_odometry),
            (LocalizationStatus, "localization_status", self._take_status),
        ):
            node.create_subscription(kind, f"{NODE_NAME}/{topic}", take, qos.DEMO_ANSWERS)

    def run(self, parameters: Mapping[str, object], log: Path) -> MapFlight:
        with NodeProcess(self._node, self._executor, parameters, log) as process:
            self._report("starting the node with the map", 0)
            process.wait_until_up()
            process.configure()
            process.activate()
            publishers = (self._image, self._info, self._range, self._imu)
            if not process.wait(
                lambda: all(p.get_subscription_count() > 0 for p in publishers),
                _DISCOVERY_TIMEOUT,
            ):
                raise InferenceError(
                    f"the active node did not subscribe within {_DISCOVERY_TIMEOUT:g} s: see {log}"
                )
            begin = time.monotonic()
            for frame in self._flight:
                self._publish(frame, process)
            duration = time.monotonic() - begin
            self._report("shutting the node down", len(self._fixes))
            exit_code = process.shut_down()
        return MapFlight(
            published=len(self._stamps),
            answered=len(self._answered),
            searched=len(self._searched),
            first_fix=self._first_fix,
            fixes=tuple(self._fixes),
            followed=tuple(self._followed),
            exit_code=exit_code,
            duration=duration,
        )

    def _publish(self, frame: Frame, process: NodeProcess) -> None:
        due = time.monotonic() + PERIOD
        message = frame_message(frame)
        self._stamps[frame.stamp_ns] = frame.index
        self._publish_lens(message)
        self._publish_range(message, frame.index)
        self._publish_attitude(message, frame.index)
        self._image.publish(message)
        process.wait(lambda: frame.index in self._answered, _ANSWER_TIMEOUT)
        if frame.index % SEARCHED == 0 or frame.index == len(self._flight) - 1:
            process.wait(lambda: frame.index in self._searched, _SEARCH_TIMEOUT)
        process.wait(lambda: False, max(0.0, due - time.monotonic()))

    def _publish_lens(self, image: Image) -> None:
        info = CameraInfo(header=image.header, width=image.width, height=image.height)
        info.distortion_model = "plumb_bob"
        info.k = [float(value) for value in self._flight.camera_matrix.ravel()]
        self._info.publish(info)

    def _publish_range(self, image: Image, index: int) -> None:
        height = (1.0 + HEIGHT_ERROR) * self._flight.pose(index).height
        self._range.publish(Range(header=image.header, range=height, min_range=0.0, max_range=1e5))

    def _publish_attitude(self, image: Image, index: int) -> None:
        heading, gravity = heading_and_gravity(self._flight.camera_to_enu(index))
        off = self._random.normal(0.0, 1.0, 3) * (HEADING_SIGMA, TILT_SIGMA, TILT_SIGMA)
        leaning = gravity + np.cross([off[1], off[2], 0.0], gravity)
        message = Imu()
        message.header.stamp, message.header.frame_id = image.header.stamp, "base_link"
        turn = message.orientation
        turn.x, turn.y, turn.z, turn.w = body_of(
            heading + off[0], leaning / np.linalg.norm(leaning), LOOKING_DOWN
        )
        covariance = np.diag([TILT_SIGMA**2, TILT_SIGMA**2, HEADING_SIGMA**2])
        message.orientation_covariance = covariance.ravel().tolist()
        self._imu.publish(message)

    def _take_features(self, message: FeatureArray) -> None:
        index = self._stamps.get(nanoseconds(message.header.stamp))
        if index is not None:
            self._answered.add(index)

    def _take_fix(self, message: NavSatFix) -> None:
        index = self._stamps.get(nanoseconds(message.header.stamp))
        if index is None:
            return
        at = complex(*self._frame.to_enu(message.latitude, message.longitude))
        covariance = np.array(message.position_covariance).reshape(3, 3)[:2, :2]
        self._fixes.append(Position(index, at, covariance))
        self._report("flying over the map", len(self._fixes))

    def _take_odometry(self, message: Odometry) -> None:
        index = self._stamps.get(nanoseconds(message.header.stamp))
        if index is None:
            return
        place = message.pose.pose.position
        covariance = np.array(message.pose.covariance).reshape(6, 6)[:2, :2]
        self._followed.append(Position(index, complex(place.x, place.y), covariance))

    def _take_status(self, message: LocalizationStatus) -> None:
        index = self._stamps.get(nanoseconds(message.header.stamp))
        if index is None:
            return
        self._searched.add(index)
        if message.fix_accepted and self._first_fix is None:
            self._first_fix = len(self._searched)

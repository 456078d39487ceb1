"""What other nodes know of the position, height and attitude, for localization."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np
from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from sensor_msgs.msg import Imu, NavSatFix, Range
from std_msgs.msg import Float64

from gps_denied_inference.errors import InvalidParameterError
from gps_denied_inference.maps.tiles import MapInfo
from gps_denied_inference.node import qos
from gps_denied_inference.pipeline.localization.attitude import CameraAttitude, mount
from gps_denied_inference.pipeline.localization.prior import Prior
from gps_denied_inference.settings import Settings

T = TypeVar("T")

KEPT = 400
"""Newest messages of each kind: two seconds of a fast IMU."""
LEAST_POSITION_SIGMA = 1.0
"""m; a position said to be better is taken for this good."""
DEFAULT_TILT_SIGMA = math.radians(2.0)
DEFAULT_HEADING_SIGMA = math.radians(10.0)
"""rad, where a message does not say."""
LEAST_ANGLE_SIGMA = math.radians(0.5)


class Newest(Generic[T]):
    """Values by their time; safe to use from several threads."""

    def __init__(self) -> None:
        self._values: deque[tuple[int, T]] = deque(maxlen=KEPT)
        self._lock = threading.Lock()

    def put(self, stamp_ns: int, value: T) -> None:
        """Keep a value."""
        with self._lock:
            self._values.append((stamp_ns, value))

    def near(self, stamp_ns: int, limit_ns: int) -> T | None:
        """Return the value nearest in time; None where none lies within the limit."""
        with self._lock:
            nearest = min(self._values, key=lambda item: abs(item[0] - stamp_ns), default=None)
        if nearest is None or abs(nearest[0] - stamp_ns) > limit_ns:
            return None
        return nearest[1]


class Priors:
    """Subscribes ``prior/fix``, ``prior/pose``, ``prior/height``, ``prior/range`` and ``imu``.

    Any may be absent or stop. A message that says nothing (NaN, no covariance, a covariance that is
    none) is left out and counted.

    Args:
        node: that owns the subscriptions.
        settings: of the node.
        info: of the map.

    Attributes:
        refused: messages left out, by topic.
    """

    def __init__(self, node: Node, settings: Settings, info: MapInfo) -> None:
        self._node = node
        self._info = info
        self._limit_ns = round(settings.prior_timeout * 1e9)
        self._height_share = settings.height_sigma
        self._mount = mount(
            settings.camera_mount_roll, settings.camera_mount_pitch, settings.camera_mount_yaw
        )
        self.refused: dict[str, int] = {}
        self._positions: Newest[tuple[tuple[float, float], float]] = Newest()
        self._headings: Newest[tuple[float, float]] = Newest()
        self._heights: Newest[float] = Newest()
        self._attitudes: Newest[CameraAttitude] = Newest()
        group = MutuallyExclusiveCallbackGroup()
        self._subscriptions = [
            node.create_subscription(
                kind, topic, self._guarded(topic, take), qos.PRIOR, callback_group=group
            )
            for kind, topic, take in (
                (NavSatFix, "prior/fix", self._take_fix),
                (PoseWithCovarianceStamped, "prior/pose", self._take_pose),
                (Float64, "prior/height", self._take_height),
                (Range, "prior/range", self._take_range),
                (Imu, "imu", self._take_imu),
            )
        ]

    @property
    def mounted(self) -> Any:
        """Camera optical to body FLU."""
        return self._mount

    def at(self, stamp_ns: int) -> Prior:
        """Return what is known of the moment of a frame."""
        known: dict[str, Any] = {}
        position = self._positions.near(stamp_ns, self._limit_ns)
        if position is not None:
            known |= {"position": position[0], "position_sigma": position[1]}
        height = self._heights.near(stamp_ns, self._limit_ns)
        if height is not None:
            known |= {"height": height, "height_sigma": self._height_share * height}
        attitude = self._attitudes.near(stamp_ns, self._limit_ns)
        heading = self._headings.near(stamp_ns, self._limit_ns)
        if attitude is not None:
            known |= {
                "heading": attitude.heading,
                "heading_sigma": attitude.heading_sigma,
                "down": tuple(float(v) for v in attitude.gravity),
                "down_sigma": attitude.tilt_sigma,
            }
        elif heading is not None:
            known |= {"heading": heading[0], "heading_sigma": heading[1]}
        return Prior(**known)

    def _guarded(self, topic: str, take: Callable[[Any], None]) -> Callable[[Any], None]:
        def guarded(message: Any) -> None:
            try:
                take(message)
            except (InvalidParameterError, ValueError, OverflowError) as error:
                self.refused[topic] = self.refused.get(topic, 0) + 1
                self._node.get_logger().warning(
                    f"{self._node.resolve_topic_name(topic)}: a prior is left out: {error}",
                    throttle_duration_sec=5.0,
                )

        return guarded

    def _take_fix(self, message: NavSatFix) -> None:
        if message.position_covariance_type == NavSatFix.COVARIANCE_TYPE_UNKNOWN:
            raise ValueError("its covariance is unknown")
        sigma = _horizontal_sigma(message.position_covariance, 3)
        if not (math.isfinite(message.latitude) and math.isfinite(message.longitude)):
            raise ValueError("latitude or longitude is not finite")
        if abs(message.latitude) > 90.0 or abs(message.longitude) > 360.0:
            raise ValueError("latitude or longitude lies beyond the Earth")
        east, north = self._info.to_enu(message.latitude, message.longitude)
        if not (math.isfinite(east) and math.isfinite(north)):
            raise ValueError("it lies on the other side of the Earth")
        self._positions.put(_ns(message.header.stamp), ((east, north), sigma))

    def _take_pose(self, message: PoseWithCovarianceStamped) -> None:
        place, turn = message.pose.pose.position, message.pose.pose.orientation
        if not (math.isfinite(place.x) and math.isfinite(place.y)):
            raise ValueError("its position is not finite")
        sigma = _horizontal_sigma(message.pose.covariance, 6)
        stamp = _ns(message.header.stamp)
        heading_sigma = _sigma(message.pose.covariance[35], DEFAULT_HEADING_SIGMA)
        attitude = CameraAttitude.of_body(
            (turn.x, turn.y, turn.z, turn.w), self._mount, heading_sigma, DEFAULT_TILT_SIGMA
        )
        self._positions.put(stamp, ((place.x, place.y), sigma))
        if attitude is not None:
            self._headings.put(stamp, (attitude.heading, attitude.heading_sigma))

    def _take_height(self, message: Float64) -> None:
        now_ns = int(self._node.get_clock().now().nanoseconds)
        self._heights.put(now_ns, _height(message.data))

    def _take_range(self, message: Range) -> None:
        if not message.min_range <= message.range <= message.max_range:
            raise ValueError("it is outside the sensor's own range")
        self._heights.put(_ns(message.header.stamp), _height(message.range))

    def _take_imu(self, message: Imu) -> None:
        if message.orientation_covariance[0] == -1.0:
            raise ValueError("it has no orientation")
        turn = message.orientation
        attitude = CameraAttitude.of_body(
            (turn.x, turn.y, turn.z, turn.w),
            self._mount,
            _sigma(message.orientation_covariance[8], DEFAULT_HEADING_SIGMA),
            _sigma(
                max(message.orientation_covariance[0], message.orientation_covariance[4]),
                DEFAULT_TILT_SIGMA,
            ),
        )
        if attitude is not None:
            self._attitudes.put(_ns(message.header.stamp), attitude)

    def destroy(self) -> None:
        """Give the subscriptions back."""
        subscriptions, self._subscriptions = self._subscriptions, []
        for subscription in subscriptions:
            self._node.destroy_subscription(subscription)


def _ns(stamp: Any) -> int:
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def _height(value: float) -> float:
    if not (math.isfinite(value) and value > 0.0):
        raise ValueError(f"a height of {value} m")
    return float(value)


def _sigma(variance: float, default: float) -> float:
    if not (math.isfinite(variance) and variance > 0.0):
        return default
    return max(math.sqrt(variance), LEAST_ANGLE_SIGMA)


def _horizontal_sigma(covariance: Any, size: int) -> float:
    """Return the sigma of the worst horizontal direction, m."""
    block = np.asarray(covariance, np.float64).reshape(size, size)[:2, :2]
    if not np.isfinite(block).all():
        raise ValueError("its covariance is not finite")
    least, most = np.linalg.eigvalsh(0.5 * (block + block.T))
    if not (least >= 0.0 and most > 0.0):
        raise ValueError("its covariance is zero or none")
    return max(math.sqrt(float(most)), LEAST_POSITION_SIGMA)

"""Places on the map as ROS messages: frames and units of REP-103 and REP-105."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from geometry_msgs.msg import PoseWithCovarianceStamped
from nav_msgs.msg import Odometry
from sensor_msgs.msg import NavSatFix, NavSatStatus
from std_msgs.msg import Header

from gps_denied_inference.maps.tiles import MapInfo
from gps_denied_inference.msg import LocalizationStatus
from gps_denied_inference.node import qos
from gps_denied_inference.pipeline.localization.attitude import body_of, matrix_of
from gps_denied_inference.pipeline.localization.fix import FrameFix
from gps_denied_inference.pipeline.localization.flight import FlightEstimate
from gps_denied_inference.pipeline.localization.prior import Prior
from gps_denied_inference.settings import Settings

UNKNOWN_VARIANCE = 1e6
"""m^2, of a height above the ellipsoid that nobody knows: the map is flat."""
LEAST_SIGMA = 0.05
"""m; no position is published as better."""
ODOMETRY_HEADING_SIGMA = math.radians(2.0)
STATE_SEARCHING = LocalizationStatus.STATE_SEARCHING


@dataclass(frozen=True, eq=False)
class Placed:
    """A camera on the map.

    Attributes:
        east, north: m, map ENU.
        height: m above the ground.
        covariance: (3, 3) m^2, positive definite.
        heading: of the image's top, rad clockwise from north.
        gravity: unit vector in the camera's frame.
        heading_sigma, tilt_sigma: rad.
        mounted: camera optical to body FLU.
    """

    east: float
    north: float
    height: float
    covariance: npt.NDArray[np.float64]
    heading: float
    gravity: npt.NDArray[np.float64]
    heading_sigma: float
    tilt_sigma: float
    mounted: npt.NDArray[np.float64] | None = None


def placed_fix(fix: FrameFix, prior: Prior, unknown_tilt: float) -> Placed:
    """Return the camera of a fix; without attitude it is taken to look straight down.

    Then the tilt that it may have counts as an error of the position.
    """
    gravity = prior.gravity
    tilt = prior.down_sigma if prior.down_sigma is not None else unknown_tilt
    if fix.camera is not None and fix.camera_covariance is not None:
        place = [float(value) for value in fix.camera]
        covariance = np.array(fix.camera_covariance, np.float64)
    else:
        height = fix.reach * max(float(gravity[2]), 1e-3) ** 1.5
        place = [fix.east, fix.north, height]
        covariance = np.zeros((3, 3))
        covariance[:2, :2] = fix.covariance + np.eye(2) * (height * math.tan(tilt)) ** 2
        covariance[2, 2] = (fix.reach_sigma * height) ** 2
    covariance += np.eye(3) * LEAST_SIGMA**2
    return Placed(
        place[0], place[1], place[2], covariance, fix.heading, gravity, fix.heading_sigma, tilt
    )


def state_of(estimate: FlightEstimate, was_located: bool) -> int:
    """Return the state of a flight as the message names it."""
    if estimate.state == "located":
        return int(LocalizationStatus.STATE_LOCALIZED)
    return int(LocalizationStatus.STATE_LOST if was_located else STATE_SEARCHING)


def worst_sigma(covariance: npt.NDArray[np.float64]) -> float:
    """Return the sigma of the worst direction, m; NaN where it is not known."""
    if not np.isfinite(covariance).all():
        return math.nan
    return math.sqrt(max(float(np.linalg.eigvalsh(covariance)[-1]), 0.0))


class LocalizationPublishers:
    """Lifecycle publishers of task ``localize``; silent while the node is inactive."""

    def __init__(self, node: Any, settings: Settings) -> None:
        self._node = node
        self._map_frame, self._base_frame = settings.map_frame, settings.base_frame
        profile = qos.results("reliable")
        self._last: tuple[int, Placed] | None = None

        def create(kind: Any, topic: str) -> Any:
            return node.create_lifecycle_publisher(kind, **qos.publisher(node, topic, profile))

        self._fix = create(NavSatFix, "~/fix")
        self._pose = create(PoseWithCovarianceStamped, "~/pose")
        self._odometry = create(Odometry, "~/odometry")
        self._status = create(LocalizationStatus, "~/localization_status")

    def fix(self, placed: Placed, info: MapInfo, header: Header) -> None:
        """Publish the camera's latitude and longitude, stamped as its frame."""
        message = NavSatFix(header=header)
        message.status.status = NavSatStatus.STATUS_FIX
        message.latitude, message.longitude = info.to_geodetic(placed.east, placed.north)
        message.altitude = math.nan
        covariance = np.zeros((3, 3))
        covariance[:2, :2] = placed.covariance[:2, :2]
        covariance[2, 2] = UNKNOWN_VARIANCE
        message.position_covariance = covariance.ravel().tolist()
        message.position_covariance_type = NavSatFix.COVARIANCE_TYPE_KNOWN
        self._fix.publish(message)

    def pose(self, placed: Placed, header: Header, mounted: npt.NDArray[np.float64]) -> None:
        """Publish the body's pose in the map's frame; z is the height above the ground."""
        message = PoseWithCovarianceStamped()
        message.header.stamp = header.stamp
        message.header.frame_id = self._map_frame
        self._fill(message.pose, placed, mounted)
        self._pose.publish(message)

    def odometry(self, placed: Placed, header: Header, stamp_ns: int) -> None:
        """Publish pose and velocity of a frame, whether or not it was searched."""
        assert placed.mounted is not None
        message = Odometry(child_frame_id=self._base_frame)
        message.header.stamp = header.stamp
        message.header.frame_id = self._map_frame
        body = self._fill(message.pose, placed, placed.mounted)
        last, self._last = self._last, (stamp_ns, placed)
        variance = UNKNOWN_VARIANCE
        if last is not None and 0 < stamp_ns - last[0] < 1_000_000_000:
            seconds, before = (stamp_ns - last[0]) * 1e-9, last[1]
            way = np.array(
                [placed.east - before.east, placed.north - before.north,
                 placed.height - before.height]
            )  # fmt: skip
            speed = matrix_of(body).T @ (way / seconds)
            linear = message.twist.twist.linear
            linear.x, linear.y, linear.z = (float(value) for value in speed)
            # Errors of neighbouring frames are alike: their difference has a share of them.
            variance = max((0.02 * worst_sigma(placed.covariance[:2, :2]) / seconds) ** 2, 0.01)
        twist = np.full(6, UNKNOWN_VARIANCE)
        twist[:3] = variance
        message.twist.covariance = np.diag(twist).ravel().tolist()
        self._odometry.publish(message)

    def status(self, header: Header, **fields: Any) -> None:
        """Publish what became of one frame."""
        self._status.publish(LocalizationStatus(header=header, **fields))

    def _fill(
        self, pose: Any, placed: Placed, mounted: npt.NDArray[np.float64]
    ) -> tuple[float, float, float, float]:
        place, turn = pose.pose.position, pose.pose.orientation
        place.x, place.y, place.z = placed.east, placed.north, placed.height
        body = body_of(placed.heading, placed.gravity, mounted)
        turn.x, turn.y, turn.z, turn.w = body
        covariance = np.zeros((6, 6))
        covariance[:3, :3] = placed.covariance
        covariance[3, 3] = covariance[4, 4] = placed.tilt_sigma**2
        covariance[5, 5] = max(placed.heading_sigma, math.radians(0.5)) ** 2
        pose.covariance = covariance.ravel().tolist()
        return body

    def destroy(self) -> None:
        """Give the publishers back."""
        for publisher in (self._fix, self._pose, self._odometry, self._status):
            self._node.destroy_lifecycle_publisher(publisher)

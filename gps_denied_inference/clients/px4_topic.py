"""Positions for PX4 over uXRCE-DDS, where the package ``px4_msgs`` is installed.

PX4's client takes this computer's time and moves it to its own (``UXRCE_DDS_SYNCT`` 1).
"""

from __future__ import annotations

import importlib
import math
from typing import Any

from rclpy.node import Node

from gps_denied_inference.autopilot.fix import Fix
from gps_denied_inference.errors import ConfigurationError
from gps_denied_inference.node import qos

SOURCE_VISION = 2


class Px4Topic:
    """Publishes px4_msgs/AuxGlobalPosition.

    Args:
        node: that owns the publisher.
        topic: its name differs between PX4's releases.
        source_id: as ``EKF2_AGPn_ID`` names it.

    Raises:
        ConfigurationError: px4_msgs is not installed, or knows no such message.
    """

    def __init__(self, node: Node, topic: str, source_id: int) -> None:
        try:
            self._type: Any = importlib.import_module("px4_msgs.msg").AuxGlobalPosition
        except (ImportError, AttributeError) as error:
            raise ConfigurationError(
                f"px4_topic '{topic}' needs px4_msgs with AuxGlobalPosition ({error}): build "
                "px4_msgs of your PX4 release in this workspace, or leave px4_topic empty"
            ) from error
        self._node = node
        self._source_id = source_id
        self._publisher = node.create_publisher(self._type, topic, qos.PX4_POSITION)

    def publish(self, fix: Fix, sigma: float, undulation: float, now_ns: int) -> None:
        """Publish one fix.

        Args:
            fix: one that the policy let through.
            sigma: m, horizontal standard deviation.
            undulation: m, the geoid above the ellipsoid; NaN = not known.
            now_ns: ROS time of sending.
        """
        variance_up = fix.covariance[8]
        altitude = fix.altitude - undulation
        has_altitude = math.isfinite(altitude) and variance_up > 0.0
        self._publisher.publish(
            self._type(
                timestamp=now_ns // 1000,
                timestamp_sample=fix.stamp_ns // 1000,
                id=self._source_id,
                source=SOURCE_VISION,
                lat=fix.latitude,
                lon=fix.longitude,
                alt=altitude if has_altitude else math.nan,
                eph=sigma,
                epv=math.sqrt(variance_up) if has_altitude else math.nan,
                lat_lon_reset_counter=fix.reset_counter % 256,
            )
        )

    def destroy(self) -> None:
        """Give the publisher back."""
        self._node.destroy_publisher(self._publisher)

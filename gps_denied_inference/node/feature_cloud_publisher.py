"""~/feature_cloud: tracks as VINS-Mono and VINS-Fusion estimators read them."""

from __future__ import annotations

import time
from collections.abc import Callable

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile
from sensor_msgs.msg import ChannelFloat32, PointCloud
from std_msgs.msg import Header

from gps_denied_inference.errors import FrameError
from gps_denied_inference.node import messages, qos
from gps_denied_inference.node.topics import own_topic
from gps_denied_inference.pipeline.camera import CameraModel
from gps_denied_inference.pipeline.feature_cloud import FeatureCloudBuilder
from gps_denied_inference.pipeline.tracking.update import TrackUpdate
from gps_denied_inference.settings import Settings

LOOK_PERIOD = 1.0
"""s between looks at why there is no calibration."""

FRAMES_BEFORE = 3
"""Frames that may come before the calibration."""


class FeatureCloudPublisher:
    """Publishes a cloud per tracked frame once the camera's calibration is known."""

    def __init__(
        self, node: LifecycleNode, settings: Settings, profile: QoSProfile, camera: str = ""
    ) -> None:
        self._node = node
        self._settings = settings
        self._publisher = node.create_lifecycle_publisher(
            PointCloud, **qos.publisher(node, own_topic(camera, "~/feature_cloud"), profile)
        )
        self.refused = ""
        """Why no cloud is published; empty = it is."""
        self._without = 0
        self._looked = float("-inf")
        self._camera: CameraModel | None = None
        self._builder: FeatureCloudBuilder | None = None

    def publish(
        self,
        update: TrackUpdate,
        header: Header,
        camera: CameraModel | None,
        missing: Callable[[], str],
    ) -> None:
        """Publish the tracks of one frame, or say, once per cause, why not.

        Nothing is made while nobody subscribes.

        Args:
            missing: says why there is no ``camera``.
        """
        self._without = 0 if camera is not None else self._without + 1
        if camera is None:
            # The first calibration comes about with the first frame. Looking is not for every
            # frame: who publishes changes by the second.
            now = time.monotonic()
            if self._without > FRAMES_BEFORE and now - self._looked >= LOOK_PERIOD:
                self._looked = now
                self._refuse(missing())
            return
        if camera is not self._camera or self._builder is None:
            self._camera = camera
            self._builder = FeatureCloudBuilder(
                camera, self._settings.cloud_layout, self._settings.cloud_max_points
            )
        if not self.is_wanted:
            self.refused = ""
            self._builder.pause()
            return
        stamp_ns = header.stamp.sec * 1_000_000_000 + header.stamp.nanosec
        try:
            cloud = self._builder.build(update, stamp_ns)
        except FrameError as error:
            self._refuse(str(error))
            return
        self.refused = ""
        if cloud is None:
            return
        message = PointCloud(header=header)
        message.points = messages.points(cloud.points)
        message.channels = [
            ChannelFloat32(name=name, values=messages.packed("f", values))
            for name, values in cloud.channels
        ]
        self._publisher.publish(message)

    @property
    def is_wanted(self) -> bool:
        """True while somebody subscribes."""
        return int(self._publisher.get_subscription_count()) > 0

    def _refuse(self, why: str) -> None:
        if why and why != self.refused:
            self.refused = why
            self._node.get_logger().warning(f"no feature_cloud: {why}")

    def destroy(self) -> None:
        """Give the publisher back."""
        self._node.destroy_lifecycle_publisher(self._publisher)

"""~/feature_cloud: tracks as VINS-Mono and VINS-Fusion estimators read them."""

from __future__ import annotations

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile
from sensor_msgs.msg import ChannelFloat32, PointCloud
from std_msgs.msg import Header

from gps_denied_inference.errors import FrameError
from gps_denied_inference.node import messages, qos
from gps_denied_inference.pipeline.camera import CameraModel
from gps_denied_inference.pipeline.feature_cloud import FeatureCloudBuilder
from gps_denied_inference.pipeline.tracking.update import TrackUpdate
from gps_denied_inference.settings import Settings

WARNING_PERIOD = 5.0
"""s between lines that say why no cloud is published."""


class FeatureCloudPublisher:
    """Publishes a cloud per tracked frame once the camera's calibration is known."""

    def __init__(self, node: LifecycleNode, settings: Settings, profile: QoSProfile) -> None:
        self._node = node
        self._settings = settings
        self._publisher = node.create_lifecycle_publisher(
            PointCloud, **qos.publisher(node, "~/feature_cloud", profile)
        )
        self._camera: CameraModel | None = None
        self._builder: FeatureCloudBuilder | None = None

    def publish(self, update: TrackUpdate, header: Header, camera: CameraModel | None) -> None:
        """Publish the tracks of one frame; without a calibration say so, rate-limited."""
        if camera is None:
            self._refuse("no camera_info has arrived: is its topic remapped to the camera's?")
            return
        if camera is not self._camera or self._builder is None:
            self._camera = camera
            self._builder = FeatureCloudBuilder(
                camera, self._settings.cloud_layout, self._settings.cloud_max_points
            )
        stamp_ns = header.stamp.sec * 1_000_000_000 + header.stamp.nanosec
        try:
            cloud = self._builder.build(update, stamp_ns)
        except FrameError as error:
            self._refuse(str(error))
            return
        if cloud is None:
            return
        message = PointCloud(header=header)
        message.points = messages.points(cloud.points)
        message.channels = [
            ChannelFloat32(name=name, values=messages.packed("f", values))
            for name, values in cloud.channels
        ]
        self._publisher.publish(message)

    def _refuse(self, why: str) -> None:
        self._node.get_logger().warning(
            f"no feature_cloud: {why}", throttle_duration_sec=WARNING_PERIOD
        )

    def destroy(self) -> None:
        """Give the publisher back."""
        self._node.destroy_lifecycle_publisher(self._publisher)

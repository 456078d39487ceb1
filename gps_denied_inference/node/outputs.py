"""What the node publishes per frame."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from gps_denied_inference.msg import FeatureArray, MatchArray
from gps_denied_inference.node import messages, qos
from gps_denied_inference.node.feature_cloud_publisher import FeatureCloudPublisher
from gps_denied_inference.node.topics import own_topic
from gps_denied_inference.pipeline.camera import CameraModel
from gps_denied_inference.pipeline.overlay import draw_overlay
from gps_denied_inference.session import FrameResult
from gps_denied_inference.settings import Settings


class ResultPublishers:
    """Lifecycle publishers of one camera of a configured node; silent while it is inactive.

    Args:
        node: the lifecycle node.
        settings: valid settings.
        camera: its name; empty = the only camera, whose topics have no name in them.
    """

    def __init__(self, node: LifecycleNode, settings: Settings, camera: str = "") -> None:
        self._node = node
        self._settings = settings
        profile = qos.results(settings.result_reliability)

        def create(kind: type, topic: str, profile: QoSProfile) -> Any:
            topic = own_topic(camera, topic)
            return node.create_lifecycle_publisher(kind, **qos.publisher(node, topic, profile))

        self._features = create(FeatureArray, "~/features", profile)
        self._debug_image = create(Image, "~/debug_image", qos.DEBUG_IMAGE)
        self._publishers: list[Any] = [self._features, self._debug_image]
        self._matches: Any = None
        self._cloud: FeatureCloudPublisher | None = None
        if settings.task != "extract":
            self._matches = create(MatchArray, "~/matches", profile)
            self._publishers.append(self._matches)
        if settings.keeps_tracks:
            self._cloud = FeatureCloudPublisher(node, settings, profile, camera)

    def publish(
        self,
        image: npt.NDArray[np.uint8],
        result: FrameResult,
        header: Header,
        camera: CameraModel | None,
        calibration_missing: Callable[[], str],
    ) -> None:
        """Publish one frame's answer, every message stamped as the frame was.

        What nobody subscribes to is not made.
        """
        if _is_wanted(self._features):
            self._features.publish(messages.feature_array(result.features, header, result.quality))
        if result.comparison is not None and _is_wanted(self._matches):
            self._matches.publish(
                messages.match_array(
                    result, header, self._settings.matcher, self._reference_name(result)
                )
            )
        if self._cloud is not None and result.track is not None:
            self._cloud.publish(result.track, header, camera, calibration_missing)
        # Drawing costs more than extracting does on a GPU: only while somebody looks.
        if _is_wanted(self._debug_image):
            overlay = draw_overlay(image, result.features, result.matches, result.geometry)
            self._debug_image.publish(messages.image_message(overlay, header))

    @property
    def cloud_missing(self) -> str:
        """Why subscribers of ``~/feature_cloud`` get nothing; empty = they do, or are none."""
        cloud = self._cloud
        return cloud.refused if cloud is not None and cloud.is_wanted else ""

    def _reference_name(self, result: FrameResult) -> str:
        if self._settings.keeps_tracks:
            return "keyframe"
        if isinstance(result.reference_tag, Header):
            return "topic"
        return Path(self._settings.reference_file).name

    def destroy(self) -> None:
        """Give every publisher back."""
        for publisher in self._publishers:
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers.clear()
        if self._cloud is not None:
            self._cloud.destroy()


def _is_wanted(publisher: Any) -> bool:
    return int(publisher.get_subscription_count()) > 0

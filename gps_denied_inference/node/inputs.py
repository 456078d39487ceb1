"""What the node subscribes: frames, the reference image, the camera's calibration."""

from __future__ import annotations

import functools
import time
from typing import Any

import numpy as np
import numpy.typing as npt
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.event_handler import (
    QoSMessageLostInfo,
    SubscriptionEventCallbacks,
    UnsupportedEventTypeError,
)
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from gps_denied_inference.errors import GpsDeniedInferenceError
from gps_denied_inference.images.compressed import compressed_to_array
from gps_denied_inference.images.raw import image_to_array
from gps_denied_inference.node import qos
from gps_denied_inference.node.cv_bridge_encodings import cv_bridge_convert
from gps_denied_inference.node.frame_worker import FrameWorker
from gps_denied_inference.node.side_input import SideInput
from gps_denied_inference.node.silence import silence
from gps_denied_inference.node.topics import calibration_topic, own_topic
from gps_denied_inference.pipeline.camera import CameraModel, calibration_fields
from gps_denied_inference.pipeline.sequence import UNSUPPORTED, SequenceWatch
from gps_denied_inference.pipeline.task_health import Finding
from gps_denied_inference.settings import Settings


def image_topic(settings: Settings, camera: str = "") -> str:
    """Return where frames of a camera come from, before remapping; no name = the only one."""
    compressed = settings.image_transport == "compressed"
    return own_topic(camera, "image/compressed" if compressed else "image")


class FrameInputs:
    """Subscriptions of one camera of an active node.

    Args:
        node: the node that subscribes.
        settings: valid settings.
        camera: its name; empty = the only camera, whose topics have no name in them.

    Attributes:
        camera_model: from the newest valid camera_info; None until one arrives.
        calibration_refused: why the newest camera_info was refused; empty = it was not.
    """

    def __init__(self, node: Node, settings: Settings, camera: str = "") -> None:
        self._node = node
        self.reference_topic = own_topic(camera, "reference/image")
        self._settings = settings
        self._group = MutuallyExclusiveCallbackGroup()
        self._subscriptions: list[Any] = []
        self._sides: list[SideInput] = []
        self._calibration = ""
        self._kind = CompressedImage if settings.image_transport == "compressed" else Image
        self.camera_model: CameraModel | None = None
        frames = image_topic(settings, camera)
        self._frames_qos = self._qos(frames, qos.IMAGE)
        self.calibration_refused = ""
        calibration = calibration_topic(node, frames, camera)
        self._info_qos = self._qos(calibration, qos.CAMERA_INFO)
        self._reference_qos = self._qos(self.reference_topic, qos.REFERENCE)

    def _qos(self, topic: str, profile: QoSProfile) -> qos.TopicQos:
        return qos.TopicQos(self._node, topic, "subscription", profile)

    def subscribe(self, worker: FrameWorker, place: int = 0) -> None:
        """Hand frames to ``worker`` from now on, as those of the camera at ``place``."""
        self._subscriptions = [self._subscribe_frames(worker, place)]
        self._sides = [SideInput(self._node, CameraInfo, self._info_qos, self._calibrate)]
        if self._settings.task == "match":
            self._sides.append(
                SideInput(
                    self._node,
                    Image,
                    self._reference_qos,
                    lambda message: worker.offer_reference(message, place),
                )
            )

    def _subscribe_frames(self, worker: FrameWorker, place: int) -> Any:
        """Subscribe to frames, and to what the middleware tells of those that do not come.

        It keeps one frame, so that the newest is taken; the ones that it replaced show as gaps in
        the sender's numbers. The ones that it lost on the way it reports by an event.
        """
        watch = SequenceWatch()

        def take(message: Any, info: Any) -> None:
            number = info.get("publication_sequence_number", UNSUPPORTED)
            skipped = watch.missing(number, time.monotonic())
            if skipped:
                worker.skipped(skipped, place)
            worker.offer(message, place)

        def count_lost(lost: QoSMessageLostInfo) -> None:
            worker.lost(lost.total_count_change, place, numbered=watch.is_numbered)

        create = functools.partial(
            self._node.create_subscription,
            self._kind,
            callback=take,
            callback_group=self._group,
            **self._frames_qos.arguments(),
        )
        try:
            return create(event_callbacks=SubscriptionEventCallbacks(message_lost=count_lost))
        except UnsupportedEventTypeError:
            self._node.get_logger().info(
                "this DDS implementation does not tell how many frames it loses: frames lost on "
                "the way from the camera are not counted"
            )
            return create()

    @property
    def topic(self) -> str:
        """Where frames come from, resolved."""
        return self._node.resolve_topic_name(self._frames_qos.topic)

    @property
    def calibration_topic(self) -> str:
        """Where the calibration comes from, resolved."""
        return self._node.resolve_topic_name(self._info_qos.topic)

    def frames_missing(self, seen: int) -> Finding | None:
        """Return why no frame comes; None while nothing is subscribed.

        Args:
            seen: frames that came before they stopped.
        """
        subscriptions = list(self._subscriptions)
        if not subscriptions:
            return None
        profile = subscriptions[0].qos_profile
        return silence(self._node, self.topic, self._kind, profile, seen)

    def calibration_missing(self) -> str:
        """Return why there is no calibration; empty where there is one."""
        if self.camera_model is not None:
            return ""
        topic = self.calibration_topic
        if self.calibration_refused:
            return f"the camera_info on {topic} was refused: {self.calibration_refused}"
        why = silence(self._node, topic, CameraInfo, qos.CAMERA_INFO, 0)
        return f"no camera_info has arrived: {why.line}"

    def unsubscribe(self) -> None:
        """Take no more frames."""
        subscriptions, self._subscriptions = self._subscriptions, []
        for subscription in subscriptions:
            self._node.destroy_subscription(subscription)
        sides, self._sides = self._sides, []
        for side in sides:
            side.destroy()

    def decode(self, message: Any) -> npt.NDArray[np.uint8]:
        """Convert a raw or compressed image to what the engine takes.

        Raises:
            FrameError: with the reason that is counted.
        """
        settings = self._settings
        how: tuple[Any, Any, int] = (
            settings.color,
            settings.mono16_scaling,
            settings.max_image_pixels,
        )
        if isinstance(message, CompressedImage):
            return compressed_to_array(message, *how)
        return image_to_array(message, *how, convert_others=cv_bridge_convert())

    def _calibrate(self, message: CameraInfo) -> None:
        fields = calibration_fields(message)
        # As text, since NaN is never equal to itself.
        text = repr(fields)
        if text == self._calibration:
            return  # drivers repeat it with every frame
        self._calibration = text
        try:
            self.camera_model = CameraModel.from_info(**fields)
            self.calibration_refused = ""
        except GpsDeniedInferenceError as error:
            self.camera_model, self.calibration_refused = None, str(error)
            self._node.get_logger().error(
                f"camera_info refused, no feature_cloud without it: {error} "
                f"(from {self.calibration_topic})"
            )

    def destroy(self) -> None:
        """Give everything back."""
        self.unsubscribe()

"""A ROS domain of this process's own, and frames as messages. Nothing leaves this machine."""

from __future__ import annotations

import array
import os
from collections.abc import Iterator
from contextlib import contextmanager

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import Image

from gps_denied_inference.demo.frame import Frame
from gps_denied_inference.storage.share import shared_path


@contextmanager
def isolated_node() -> Iterator[tuple[Node, SingleThreadedExecutor]]:
    """Make a node of this process in a domain and namespace of its own, on this machine only."""
    # Domains 1..101 keep DDS's ports below the ephemeral range of Linux. The namespace keeps two
    # demos apart whose process ids fall on the same domain.
    domain = 1 + os.getpid() % 101
    os.environ["ROS_DOMAIN_ID"] = str(domain)
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    # Fast DDS loses large frames with its defaults. Jazzy reads the first name, Kilted the second.
    profile = str(shared_path("config", "fastdds_large_images.xml"))
    for name in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):
        os.environ.setdefault(name, profile)
    context = Context()
    rclpy.init(args=[], context=context, domain_id=domain)
    try:
        node = Node("demo_driver", namespace=f"/demo_{os.getpid()}", context=context)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        try:
            yield node, executor
        finally:
            executor.shutdown()
            node.destroy_node()
    finally:
        context.try_shutdown()


def frame_message(frame: Frame) -> Image:
    """Return a frame as the camera's driver would publish it."""
    message = Image()
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(frame.stamp_ns, 1_000_000_000)
    message.header.frame_id = "camera"
    message.height, message.width = frame.image.shape[:2]
    message.encoding = "mono8" if frame.image.ndim == 2 else "rgb8"
    message.step = message.width * (1 if frame.image.ndim == 2 else 3)
    message.data = array.array("B", frame.image.tobytes())
    return message


def nanoseconds(stamp: object) -> int:
    """Return a message's stamp, ns."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)  # type: ignore[attr-defined]

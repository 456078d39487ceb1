"""Names of the node's topics that follow from one another."""

from __future__ import annotations

import sys

from rclpy.node import Node

from gps_denied_inference.pipeline.camera import calibration_beside

CALIBRATION = "camera_info"


def own_topic(camera: str, topic: str) -> str:
    """Return a topic of one camera, before remapping.

    Args:
        camera: its name; empty = the only camera, whose topics have no name in them.
        topic: ``image``, ``~/features`` and the like.
    """
    if not camera:
        return topic
    return f"~/{camera}/{topic[2:]}" if topic.startswith("~/") else f"{camera}/{topic}"


def calibration_topic(node: Node, image_topic: str, camera: str = "") -> str:
    """Return where a camera's calibration comes from, before remapping.

    Args:
        image_topic: where its frames come from, before remapping.
        camera: its name; empty = the only camera.
    """
    own = own_topic(camera, CALIBRATION)
    expanded = node.resolve_topic_name(own, only_expand=True)
    # A rule that names what is there anyway cannot be told from none by resolving.
    given = any(part.partition(":=")[0].endswith(own) for part in sys.argv if ":=" in part)
    if given or node.resolve_topic_name(own) != expanded:
        return own
    return calibration_beside(node.resolve_topic_name(image_topic))

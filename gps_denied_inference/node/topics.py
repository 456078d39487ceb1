"""Names of the node's topics that follow from one another."""

from __future__ import annotations

import sys

from rclpy.node import Node

CALIBRATION = "camera_info"


def calibration_beside(image_topic: str) -> str:
    """Return the ``camera_info`` beside an image topic, as image_transport's subscribers have it.

    ``/cam/image_raw`` and ``/cam/image_raw/compressed`` both give ``/cam/camera_info``.
    """
    base = image_topic.removesuffix("/compressed")
    return base[: base.rfind("/") + 1] + CALIBRATION


def calibration_topic(node: Node, image_topic: str) -> str:
    """Return where the node's calibration comes from, before remapping.

    Args:
        image_topic: where its frames come from, before remapping.
    """
    expanded = node.resolve_topic_name(CALIBRATION, only_expand=True)
    # A rule that names what is there anyway cannot be told from none by resolving.
    given = any(part.partition(":=")[0].endswith(CALIBRATION) for part in sys.argv if ":=" in part)
    if given or node.resolve_topic_name(CALIBRATION) != expanded:
        return CALIBRATION
    return calibration_beside(node.resolve_topic_name(image_topic))

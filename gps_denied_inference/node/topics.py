"""Names of the node's topics that follow from one another."""

from __future__ import annotations

import sys

from rclpy.node import Node

from gps_denied_inference.pipeline.camera import calibration_beside

CALIBRATION = "camera_info"


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

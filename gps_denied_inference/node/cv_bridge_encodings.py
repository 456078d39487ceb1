"""Encodings of images that only a ROS installation's cv_bridge knows."""

from __future__ import annotations

import functools

from gps_denied_inference.images.raw import Convert


@functools.cache
def cv_bridge_convert() -> Convert | None:
    """Return cv_bridge's conversion; None where cv_bridge is not installed."""
    try:
        from cv_bridge import CvBridge
    except ImportError:
        return None
    convert: Convert = CvBridge().imgmsg_to_cv2
    return convert

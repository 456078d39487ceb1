"""Core types to messages. Large arrays go through ``array.array``, which rclpy takes unchecked."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
import numpy.typing as npt
from geometry_msgs.msg import Point32
from rclpy.time import Time
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from gps_denied_inference.msg import FeatureArray, MatchArray, ThermalSensor, ThermalState
from gps_denied_inference.pipeline.features import Features
from gps_denied_inference.pipeline.frame_quality import FrameQuality
from gps_denied_inference.session import FrameResult
from gps_denied_inference.thermal.state import ThermalState as CoreThermalState

MODEL_TYPES = {
    "homography": MatchArray.MODEL_HOMOGRAPHY,
    "fundamental": MatchArray.MODEL_FUNDAMENTAL,
}

QUALITY = ("brightness", "dark_share", "bright_share", "blur")
"""Fields of FeatureArray and CameraStatus, named as in the core."""

SAME_IN_BOTH = (
    "source",
    "is_telemetry_available",
    "thermal_throttle_active",
    "throttle_bits",
    "clock",
    "clock_max",
    "power",
    "load",
    "power_mode",
    "sample_age",
    "reason",
    "policy_enabled",
    "frame_rate_limit",
    "keypoint_limit",
    "action",
)
"""Fields of ThermalState with the same name and type in the core."""


def points(rows: npt.NDArray[np.float32]) -> list[Point32]:
    """(N, 3) float32 to points."""
    return [Point32(x=x, y=y, z=z) for x, y, z in rows.tolist()]


def packed(code: str, values: npt.NDArray[Any] | None) -> array[Any]:
    """Copy a numpy array into an ``array.array`` of type ``code``; None gives an empty one."""
    result = array(code)
    if values is not None:
        result.frombytes(np.ascontiguousarray(values, dtype=np.dtype(code)).tobytes())
    return result


def feature_array(
    features: Features, header: Header, quality: FrameQuality | None = None
) -> FeatureArray:
    """Fill a FeatureArray; ``header`` is the image's, untouched."""
    quality = quality or FrameQuality.median(())
    message = FeatureArray(header=header)
    message.image_width = features.width
    message.image_height = features.height
    message.model = features.model
    message.model_sha256 = features.model_sha256
    message.count = features.count
    message.descriptor_dim = int(features.descriptors.shape[1])
    message.keypoints = packed("f", features.keypoints)
    message.scores = packed("f", features.scores)
    message.descriptors = packed("f", features.descriptors)
    message.track_ids = packed("Q", features.track_ids)
    message.track_ages = packed("I", features.track_ages)
    for name in QUALITY:
        setattr(message, name, getattr(quality, name))
    return message


def match_array(result: FrameResult, header: Header, matcher: str, reference: str) -> MatchArray:
    """Fill a MatchArray from a result that has matches."""
    assert result.matches is not None
    assert result.reference_features is not None
    matches = result.matches
    message = MatchArray(header=header, reference=reference, matcher=matcher)
    if isinstance(result.reference_tag, Header):
        message.reference_header = result.reference_tag
    message.query_width = result.features.width
    message.query_height = result.features.height
    message.reference_width = result.reference_features.width
    message.reference_height = result.reference_features.height
    message.count = len(matches.scores)
    message.query_points = packed("f", matches.query_points)
    message.reference_points = packed("f", matches.reference_points)
    message.query_indices = packed("I", matches.query_indices)
    message.reference_indices = packed("I", matches.reference_indices)
    message.scores = packed("f", matches.scores)
    message.model_type = MatchArray.MODEL_NONE
    message.model = np.full(9, np.nan)
    message.inlier_rms = float("nan")
    message.confidence = float("nan")
    geometry = result.geometry
    if geometry is not None and geometry.type in MODEL_TYPES:
        message.model_type = MODEL_TYPES[geometry.type]
        message.model = np.asarray(geometry.matrix, dtype=np.float64).reshape(9)
        message.inliers = geometry.inliers.tolist()
        message.inlier_count = int(geometry.inliers.sum())
        message.inlier_rms = float(geometry.rms)
        message.confidence = float(geometry.confidence)
    return message


def image_message(image: npt.NDArray[np.uint8], header: Header) -> Image:
    """Fill an Image from uint8 (H, W) or RGB (H, W, 3)."""
    message = Image(header=header, height=image.shape[0], width=image.shape[1])
    message.encoding = "mono8" if image.ndim == 2 else "rgb8"
    message.step = image.shape[1] * (1 if image.ndim == 2 else 3)
    message.data = packed("B", image)
    return message


def thermal_state(state: CoreThermalState) -> ThermalState:
    """Fill a ThermalState; its stamp is when the sample was taken, zero if there never was one."""
    message = ThermalState()
    message.header.stamp = Time(nanoseconds=state.stamp_ns).to_msg()
    for name in SAME_IN_BOTH:
        setattr(message, name, getattr(state, name))
    message.level = int(state.level)
    message.throttle_causes = int(state.throttle_causes)
    message.sensors = [
        ThermalSensor(
            name=sensor.name,
            kind=int(sensor.kind),
            online=sensor.online,
            temperature=sensor.temperature,
            limit=sensor.limit,
            margin=sensor.margin,
        )
        for sensor in state.sensors
    ]
    return message

"""This package's messages for ``rosbags``, from the same ``.msg`` files that ROS builds from."""

from __future__ import annotations

from typing import Any

import numpy as np
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from gps_denied_inference.pipeline.feature_cloud import FeatureCloud
from gps_denied_inference.pipeline.frame_quality import FrameQuality
from gps_denied_inference.session import FrameResult
from gps_denied_inference.storage.share import shared_path

PACKAGE = "gps_denied_inference"
FEATURE_ARRAY = f"{PACKAGE}/msg/FeatureArray"
MATCH_ARRAY = f"{PACKAGE}/msg/MatchArray"
POINT_CLOUD = "sensor_msgs/msg/PointCloud"

_MODEL_NONE = 0
_MODEL_TYPES = {"homography": 1, "fundamental": 2}


def typestore() -> Any:
    """Return a type store that knows the standard messages of Jazzy and those of this package.

    Raises:
        ConfigurationError: the message definitions are not installed.
    """
    store = get_typestore(Stores.ROS2_JAZZY)
    types: dict[str, Any] = {}
    for file in sorted(shared_path("msg").glob("*.msg")):
        types.update(get_types_from_msg(file.read_text(), f"{PACKAGE}/msg/{file.stem}"))
    store.register(types)
    return store


class MessageMaker:
    """Fills messages of a type store from the pipeline's results, as the node fills its own."""

    def __init__(self, store: Any) -> None:
        self._types = store.types

    def header(self, other: Any) -> Any:
        """Return a header of this store with the stamp and frame_id of any other."""
        stamp = self._types["builtin_interfaces/msg/Time"](
            sec=int(other.stamp.sec), nanosec=int(other.stamp.nanosec)
        )
        return self._types["std_msgs/msg/Header"](stamp=stamp, frame_id=str(other.frame_id))

    def feature_array(self, result: FrameResult, header: Any) -> Any:
        """Return the FeatureArray of a result; ``header`` is one of this store's."""
        features, quality = result.features, result.quality or FrameQuality.median(())
        return self._types[FEATURE_ARRAY](
            header=header,
            image_width=features.width,
            image_height=features.height,
            model=features.model,
            model_sha256=features.model_sha256,
            count=features.count,
            descriptor_dim=int(features.descriptors.shape[1]),
            keypoints=_flat(features.keypoints, np.float32),
            scores=_flat(features.scores, np.float32),
            descriptors=_flat(features.descriptors, np.float32),
            track_ids=_flat(features.track_ids, np.uint64),
            track_ages=_flat(features.track_ages, np.uint32),
            brightness=quality.brightness,
            dark_share=quality.dark_share,
            bright_share=quality.bright_share,
            blur=quality.blur,
        )

    def match_array(
        self, result: FrameResult, header: Any, reference_header: Any, reference: str, matcher: str
    ) -> Any:
        """Return a MatchArray of a result that has matches; headers are of this store."""
        matches, against = result.matches, result.reference_features
        if matches is None or against is None:
            raise ValueError("the result has no matches")
        geometry = result.geometry
        return self._types[MATCH_ARRAY](
            header=header,
            reference_header=reference_header,
            reference=reference,
            matcher=matcher,
            query_width=result.features.width,
            query_height=result.features.height,
            reference_width=against.width,
            reference_height=against.height,
            count=len(matches.scores),
            query_points=_flat(matches.query_points, np.float32),
            reference_points=_flat(matches.reference_points, np.float32),
            query_indices=_flat(matches.query_indices, np.uint32),
            reference_indices=_flat(matches.reference_indices, np.uint32),
            scores=_flat(matches.scores, np.float32),
            model_type=_MODEL_TYPES[geometry.type] if geometry else _MODEL_NONE,
            model=_flat(geometry.matrix, np.float64) if geometry else np.full(9, np.nan),
            inliers=_flat(geometry.inliers if geometry else None, np.bool_),
            inlier_count=int(geometry.inliers.sum()) if geometry else 0,
            inlier_rms=float(geometry.rms) if geometry else float("nan"),
            confidence=float(geometry.confidence) if geometry else float("nan"),
        )

    def point_cloud(self, cloud: FeatureCloud, header: Any) -> Any:
        """Return a PointCloud; ``header`` is one of this store's."""
        point = self._types["geometry_msgs/msg/Point32"]
        channel = self._types["sensor_msgs/msg/ChannelFloat32"]
        return self._types[POINT_CLOUD](
            header=header,
            points=[point(*map(float, row)) for row in cloud.points],
            channels=[channel(name=name, values=values) for name, values in cloud.channels],
        )


def _flat(values: Any, dtype: Any) -> Any:
    """Return values as one row; None gives an empty one."""
    return np.zeros(0, dtype) if values is None else np.ascontiguousarray(values, dtype).ravel()

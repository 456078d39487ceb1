"""From an image's features to tracks, matches and places on a map. No ROS here."""

from typing import TYPE_CHECKING

from gps_denied_inference.lazy import exports

if TYPE_CHECKING:
    from gps_denied_inference.pipeline.camera import CameraModel
    from gps_denied_inference.pipeline.extractor import Extractor
    from gps_denied_inference.pipeline.features import Features
    from gps_denied_inference.pipeline.geometry import GeometricModel, verify
    from gps_denied_inference.pipeline.matcher import (
        EngineMatcher,
        Matcher,
        Matches,
        MutualNearestNeighbour,
    )
    from gps_denied_inference.pipeline.reference import Reference
    from gps_denied_inference.pipeline.tracking.tracker import Tracker
    from gps_denied_inference.pipeline.tracking.tracks import Links, Tracks

__all__ = [
    "CameraModel",
    "EngineMatcher",
    "Extractor",
    "Features",
    "GeometricModel",
    "Links",
    "Matcher",
    "Matches",
    "MutualNearestNeighbour",
    "Reference",
    "Tracker",
    "Tracks",
    "verify",
]

if not TYPE_CHECKING:
    __getattr__ = exports(
        __name__,
        {
            "camera": ("CameraModel",),
            "extractor": ("Extractor",),
            "features": ("Features",),
            "geometry": ("GeometricModel", "verify"),
            "matcher": ("EngineMatcher", "Matcher", "Matches", "MutualNearestNeighbour"),
            "reference": ("Reference",),
            "tracking.tracker": ("Tracker",),
            "tracking.tracks": ("Links", "Tracks"),
        },
    )

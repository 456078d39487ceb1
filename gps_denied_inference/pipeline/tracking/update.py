"""What the tracker says of one frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from gps_denied_inference.pipeline.comparison import Comparison
from gps_denied_inference.pipeline.features import Features
from gps_denied_inference.pipeline.geometry import GeometricModel
from gps_denied_inference.pipeline.matcher import Matches

TrackEvent = Literal["started", "tracked", "repeated", "blank", "lost", "gap", "time_backwards"]
EVENTS: tuple[TrackEvent, ...] = get_args(TrackEvent)


@dataclass(frozen=True, eq=False)
class TrackUpdate:
    """What one frame did to the tracks.

    Attributes:
        features: with track ids and ages.
        event: what became of the tracks. After ``started``, ``blank``, ``lost``, ``gap`` and
            ``time_backwards`` every id of this frame is fresh. ``repeated`` is the previous frame
            over again (same features): ids and ages are the previous ones.
        is_keyframe: this frame is the key frame for those that follow.
        to_keyframe: this frame beside the previous key frame; None where there is none.
        keyframe_features, keyframe_tag: what its matches point into, and the tag given with that
            frame; None where ``to_keyframe`` is.
        continued: number of features that continue a track.
        followed: number of those that were not detected but followed in the image.
        detected: whether the network saw this frame; else all its features were followed.
        coasting: number of tracks that wait to be detected again.
        cut: number of tracks that ended with this frame.
        counters: frames per event, and ``keyframes``, ``followed_frames`` (not detected),
            ``tracks_started``, ``tracks_cut`` and ``links_rejected`` (matches refused by geometry)
            since the tracker was made.
    """

    features: Features
    event: TrackEvent
    is_keyframe: bool
    to_keyframe: Comparison | None
    keyframe_features: Features | None
    keyframe_tag: Any
    continued: int
    followed: int
    detected: bool
    coasting: int
    cut: int
    counters: Mapping[str, int]

    @property
    def matches_to_keyframe(self) -> Matches | None:
        """Pairs to the previous key frame; None where there is none."""
        return None if self.to_keyframe is None else self.to_keyframe.matches

    @property
    def geometry(self) -> GeometricModel | None:
        """The model that verified those pairs; None where none was asked for or found."""
        return None if self.to_keyframe is None else self.to_keyframe.geometry

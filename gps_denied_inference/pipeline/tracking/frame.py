"""A frame that later ones may be matched to."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from gps_denied_inference.pipeline.features import Features
from gps_denied_inference.pipeline.geometry import Points
from gps_denied_inference.pipeline.tracking.flow import View
from gps_denied_inference.pipeline.tracking.motion import Step
from gps_denied_inference.pipeline.tracking.patches import Patches
from gps_denied_inference.pipeline.tracking.tracks import Tracks


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame that later ones may be matched to, and the tracks alive after it.

    ``detected`` are its features as they came, without points that were followed; of a frame that
    was not detected, those of the last one that was. ``to_keyframe`` is the matrix (3, 3) that
    verified them (query) against the key frame's (reference), where one did. ``step`` is the motion
    that led to it, where it was seen.
    """

    features: Features
    detected: Features
    view: View | None
    stamp_ns: int
    tag: object
    tracks: Tracks
    to_keyframe: Points | None = None
    step: Step | None = None

    @property
    def ids(self) -> npt.NDArray[np.uint64]:
        """Of the features' tracks, (N,)."""
        assert self.features.track_ids is not None
        return self.features.track_ids

    @cached_property
    def sorted_ids(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.intp]]:
        """The features' ids in rising order, (N,), and where each is among them."""
        order = np.argsort(self.ids)
        return self.ids[order], order

    @cached_property
    def seen(self) -> Tracks:
        """The tracks with patches, of a frame that came with its view."""
        if self.tracks.patches is not None:
            return self.tracks
        assert self.view is not None
        points = self.view.to_grey(self.tracks.places)
        patches = Patches.cut(self.view.smooth, points)
        return dataclasses.replace(self.tracks, patches=patches)

    def expected(self, keyframe: Frame, plane: Points) -> Points | None:
        """Return about the matrix by which a later frame agrees with the key frame.

        Args:
            plane: (3, 3), from px of this frame to px of the later one.
        """
        back = np.asarray(np.linalg.inv(plane), np.float64)
        if self is keyframe:
            return back
        return None if self.to_keyframe is None else self.to_keyframe @ back

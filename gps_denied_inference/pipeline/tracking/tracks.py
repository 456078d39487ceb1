"""The tracks alive after a frame, and the links by which features continue them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gps_denied_inference.pipeline.features import Features, FloatArray
from gps_denied_inference.pipeline.geometry import Points
from gps_denied_inference.pipeline.matcher import Matches
from gps_denied_inference.pipeline.tracking.flow import View
from gps_denied_inference.pipeline.tracking.patches import Patches

MAX_MISSED = 3
"""Frames in a row in which a track may go without being found."""


@dataclass(frozen=True, eq=False)
class Tracks:
    """All tracks alive after a frame: its N features in their order, then those that coast.

    Attributes:
        ids: (T,) uint64.
        ages: (T,) uint32, frames since the track began.
        missed: (T,) uint32, frames since it was last in a frame's features; 0 for the first N.
        followed: (T,) uint32, frames in a row in which it was followed without being detected.
        places: (T, 2) px: where the image shows the point, or the prediction where it was missed;
            filtered detections where frames come without images.
        parallax: (T, 2) px, how far it last moved beside the dominant plane in one frame.
        scores: (T,), as last detected.
        descriptors: (T, D), as last detected.
        patches: what each looks like; None where frames come without images, or none was cut yet.
    """

    ids: npt.NDArray[np.uint64]
    ages: npt.NDArray[np.uint32]
    missed: npt.NDArray[np.uint32]
    followed: npt.NDArray[np.uint32]
    places: Points
    parallax: Points
    scores: FloatArray
    descriptors: FloatArray
    patches: Patches | None

    @property
    def count(self) -> int:
        """T, the number of tracks."""
        return len(self.ids)

    @classmethod
    def fresh(cls, features: Features, ids: npt.NDArray[np.uint64]) -> Tracks:
        """Begin one track at each feature."""
        zero = np.zeros(features.count, np.uint32)
        places = features.keypoints.astype(np.float64)
        return cls(
            ids, zero, zero, zero, places, np.zeros_like(places), features.scores,
            features.descriptors, None,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Links:
    """Features that continue tracks.

    Attributes:
        plane: (3, 3), how the ground moved: from px of the earlier frame to px of this one.
        model: (3, 3), that verified the motion: this frame (query) against the earlier one.
        here: (L,) int32, into this frame's features.
        there: (L,) int32, into the earlier tracks.
        places: (L, 2) px, of the tracks in this frame.
        parallax: (L, 2) px, see :class:`Tracks`.
        followed: (L,) uint32, see :class:`Tracks`.
        predicted: (T, 2) px, where every earlier track must be now; None where nothing says so:
            then no track coasts.
        patches: of the earlier tracks, as turned and scaled now; None without images.
        ended: into the earlier tracks, those that may not coast.
    """

    plane: Points
    model: Points
    here: npt.NDArray[np.int32]
    there: npt.NDArray[np.int32]
    places: Points
    parallax: Points
    followed: npt.NDArray[np.uint32]
    predicted: Points | None
    patches: Patches | None = None
    ended: npt.NDArray[np.int32] = dataclasses.field(default_factory=lambda: np.zeros(0, np.int32))

    def without(self, drop: npt.NDArray[np.bool_]) -> Links:
        """End the tracks of some links (L,): their features begin new ones."""
        keep = ~drop
        return dataclasses.replace(
            self,
            here=self.here[keep],
            there=self.there[keep],
            places=self.places[keep],
            parallax=self.parallax[keep],
            followed=self.followed[keep],
            ended=np.concatenate([self.ended, self.there[drop]]),
        )

    def advance(
        self,
        features: Features,
        earlier: Tracks,
        ids: npt.NDArray[np.uint64],
        view: View | None,
    ) -> Tracks:
        """Return the tracks after this frame.

        Args:
            ids: (N,) uint64, one for each feature: the track's where it continues one, else fresh.
            view: the frame's image.
        """
        now = Tracks.fresh(features, ids)
        ages, followed = np.zeros_like(now.ages), np.zeros_like(now.followed)
        ages[self.here] = earlier.ages[self.there] + 1
        followed[self.here] = self.followed
        now.places[self.here] = self.places
        now.parallax[self.here] = self.parallax
        coasts = np.zeros(earlier.count, np.bool_)
        predicted = earlier.places if self.predicted is None else self.predicted
        if self.predicted is not None:
            coasts = (earlier.ages > 0) & (earlier.missed < MAX_MISSED)
            coasts[self.there] = coasts[self.ended] = False
            size = (features.width, features.height)
            coasts &= ((predicted >= 0.0) & (predicted < size)).all(axis=1)
        return Tracks(
            np.concatenate([now.ids, earlier.ids[coasts]]),
            np.concatenate([ages, earlier.ages[coasts] + 1]),
            np.concatenate([now.missed, earlier.missed[coasts] + 1]),
            np.concatenate([followed, earlier.followed[coasts]]),
            np.concatenate([now.places, predicted[coasts]]),
            np.concatenate([now.parallax, earlier.parallax[coasts]]),
            np.concatenate([now.scores, earlier.scores[coasts]]),
            np.concatenate([now.descriptors, earlier.descriptors[coasts]]),
            None if view is None else self._patches(features, view, np.flatnonzero(coasts)),
        )

    def _patches(self, features: Features, view: View, coasting: npt.NDArray[np.intp]) -> Patches:
        """Return the features' patches, those of links as they were, then the coasting ones."""
        points = view.to_grey(features.keypoints)
        if self.patches is None:
            points = np.concatenate([points, np.full((len(coasting), 2), -1e3, np.float32)])
            return Patches.cut(view.smooth, points)
        lasting = self.patches.usable(self.there)
        here, there = self.here[lasting], self.there[lasting]
        fresh = np.ones(features.count, np.bool_)
        fresh[here] = False
        return Patches.arranged(
            features.count + len(coasting),
            (self.patches, there, here),
            (Patches.cut(view.smooth, points[fresh]), slice(None), np.flatnonzero(fresh)),
            (self.patches, coasting, slice(features.count, None)),
        )


def same_tracks(
    ids: npt.NDArray[np.uint64], among: tuple[npt.NDArray[np.uint64], npt.NDArray[np.intp]]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return where ids (N,) (0 = none) are, and where the key frame's features of those tracks.

    Args:
        among: the key frame's, see :attr:`Frame.sorted_ids`.
    """
    known, order = among
    if len(known) == 0:
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    place = np.minimum(np.searchsorted(known, ids), len(known) - 1)
    here = np.flatnonzero((known[place] == ids) & (ids > 0))
    return here, order[place[here]]


def joined(
    features: Features,
    keyframe: Features,
    here: npt.NDArray[np.intp],
    there: npt.NDArray[np.intp],
) -> Matches:
    """Return pairs of features as matches; scores are the descriptors' cosine."""
    a, b = features.descriptors[here], keyframe.descriptors[there]
    cosine = np.clip(np.einsum("ij,ij->i", a, b), 0.0, 1.0)
    return Matches.between(features, keyframe, here, there, cosine)

"""Tracks in the layout that VINS estimators read from their own feature trackers.

Both estimators subscribe a ``sensor_msgs/PointCloud`` whose points are (x, y, 1) on the normalised
image plane, but the channels differ, and are read by position, not by name:

* VINS-Mono: ``id, u, v, vx, vy``
* VINS-Fusion: ``id, camera, u, v, vx, vy, gx, gy, gz``; it reads the last three (a ground-truth
  position, for plots only) whenever there are more than five channels, so they must be there.

u, v in px of the distorted image; vx, vy in 1/s on the normalised plane. What else they rely on,
and this module keeps: a point is published from its second frame on; an id is in every cloud from
its first to its last, since VINS counts observations as successive frames; ids survive float32,
which is exact up to 2^24 only (track ids pass that within the hour), so the cloud numbers its
points itself and starts again at 0 after 2^24, long after VINS has forgotten the first ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gps_denied_inference.errors import FrameError, InvalidParameterError, UnknownNameError
from gps_denied_inference.pipeline.camera import CameraModel
from gps_denied_inference.pipeline.features import Features, FloatArray
from gps_denied_inference.pipeline.tracking.update import TrackUpdate
from gps_denied_inference.settings import CloudLayout

LAYOUTS: dict[CloudLayout, tuple[str, ...]] = {
    "vins_mono": ("id", "u", "v", "vx", "vy"),
    "vins_fusion": ("id", "camera", "u", "v", "vx", "vy", "gx", "gy", "gz"),
}
"""Channel names by layout, in the order that the estimator reads them."""

ID_LIMIT = 1 << 24
"""Greatest number of ids that float32 tells apart."""


@dataclass(frozen=True, eq=False)
class FeatureCloud:
    """The content of one ``sensor_msgs/PointCloud``.

    Attributes:
        points: (N, 3) float32, (x, y, 1) on the normalised image plane.
        channels: (name, (N,) float32) in the layout's order.
        track_ids: (N,) uint64, the tracks that the points belong to.
    """

    points: FloatArray
    channels: tuple[tuple[str, FloatArray], ...]
    track_ids: npt.NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class _Seen:
    """Where features were in an earlier frame, sorted by id."""

    ids: npt.NDArray[np.uint64]
    pixels: FloatArray
    stamp_ns: int

    @classmethod
    def of(cls, features: Features, stamp_ns: int) -> _Seen:
        assert features.track_ids is not None
        order = np.argsort(features.track_ids)
        return cls(features.track_ids[order], features.keypoints[order], stamp_ns)


class FeatureCloudBuilder:
    """Chooses well-spread tracks and keeps to them as long as they live.

    Args:
        camera: the calibration of the images.
        layout: the estimator that reads it, see :data:`LAYOUTS`.
        max_points: at most this many points; VINS solves for all of them, and by default takes 150.
        cell_size: px, a new point is taken only where its square of this size has none.
        camera_index: VINS's number of this camera.

    Raises:
        UnknownNameError, InvalidParameterError: an option out of its bounds.
    """

    def __init__(
        self,
        camera: CameraModel,
        layout: CloudLayout = "vins_mono",
        max_points: int = 150,
        cell_size: float = 30.0,
        camera_index: int = 0,
    ) -> None:
        if layout not in LAYOUTS:
            raise UnknownNameError("feature cloud layout", layout, LAYOUTS)
        if max_points < 1:
            raise InvalidParameterError("max_points", max_points, ">= 1")
        if not cell_size > 0.0:
            raise InvalidParameterError("cell_size", cell_size, "> 0")
        self._camera = camera
        self._layout = layout
        self._max_points = max_points
        self._cell_size = cell_size
        self._camera_index = camera_index
        self._next_id = 0
        self._numbers: dict[int, int] = {}
        self._seen: list[_Seen] = []

    def build(self, update: TrackUpdate, stamp_ns: int) -> FeatureCloud | None:
        """Take every update of the tracker since the last pause, in order.

        A cloud is made of those that hold tracks.

        Returns:
            The cloud, or None where nothing was tracked in this frame: then nothing must be
            published, since an estimator takes a cloud without a point for the loss of that point.

        Raises:
            FrameError: ``camera_info_mismatch``, the frame is not of the calibrated size.
        """
        features = update.features
        if (features.width, features.height) != (self._camera.width, self._camera.height):
            raise FrameError(
                f"camera_info describes {self._camera.width} x {self._camera.height} px, the "
                f"frame has {features.width} x {features.height}: no feature cloud can be made",
                "camera_info_mismatch",
            )
        if update.event == "repeated":
            return None
        if update.event in ("lost", "blank"):  # tracks may go on from the frame before, or from it
            self._seen = [*self._seen[:1], _Seen.of(features, stamp_ns)]
            return None
        earlier, self._seen = self._seen, [_Seen.of(features, stamp_ns)]
        if update.event != "tracked" or not earlier:
            self._numbers.clear()
            return None
        return self._cloud(features, stamp_ns, earlier)

    def pause(self) -> None:
        """Forget every frame, as after a gap; numbers are not given twice."""
        self._seen = []
        self._numbers.clear()

    def _cloud(
        self, features: Features, stamp_ns: int, earlier: list[_Seen]
    ) -> FeatureCloud | None:
        assert features.track_ids is not None
        before, elapsed = _positions_before(features, stamp_ns, earlier)
        chosen = self._choose(features, np.isfinite(elapsed))
        pixels = features.keypoints[chosen]
        now = self._camera.undistort(pixels)
        velocity = (now - self._camera.undistort(before[chosen])) / elapsed[chosen, None]
        valid = np.isfinite(now).all(axis=1) & np.isfinite(velocity).all(axis=1)
        pixels, now, velocity = pixels[valid], now[valid], velocity[valid]
        ids = features.track_ids[chosen[valid]]
        self._number(ids)
        if len(ids) == 0:
            return None
        values = {
            "id": np.array([self._numbers[i] for i in ids.tolist()]),
            "camera": np.full(len(ids), self._camera_index),
            "u": pixels[:, 0],
            "v": pixels[:, 1],
            "vx": velocity[:, 0],
            "vy": velocity[:, 1],
        }
        unknown = np.zeros(len(ids), np.float32)
        return FeatureCloud(
            points=np.column_stack([now, np.ones(len(ids))]).astype(np.float32),
            channels=tuple(
                (name, values.get(name, unknown).astype(np.float32))
                for name in LAYOUTS[self._layout]
            ),
            track_ids=ids,
        )

    def _choose(self, features: Features, known: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
        """Return indices of points that go on, then of the best new ones in empty cells."""
        assert features.track_ids is not None
        going_on = np.isin(
            features.track_ids, np.fromiter(self._numbers, np.uint64, len(self._numbers))
        )
        old = np.flatnonzero(known & going_on)
        new = np.flatnonzero(known & ~going_on)  # in order of falling score, as features are
        cells = np.floor(features.keypoints / self._cell_size).astype(np.int64)
        cell = cells[:, 1] * (1 << 20) + cells[:, 0]
        new = new[~np.isin(cell[new], cell[old])]
        _, first = np.unique(cell[new], return_index=True)
        room = max(self._max_points - len(old), 0)
        chosen: npt.NDArray[np.intp] = np.concatenate([old, new[np.sort(first)][:room]])
        return chosen

    def _number(self, ids: npt.NDArray[np.uint64]) -> None:
        """Give each new point a number, and forget those that are not in this cloud."""
        kept = {i: self._numbers[i] for i in ids.tolist() if i in self._numbers}
        taken = set(kept.values())
        for i in ids.tolist():
            if i in kept:
                continue
            while self._next_id in taken:  # after a wrap a very long track may still hold it
                self._next_id = (self._next_id + 1) % ID_LIMIT
            kept[i] = self._next_id
            self._next_id = (self._next_id + 1) % ID_LIMIT
        self._numbers = kept


def _positions_before(
    features: Features, stamp_ns: int, earlier: list[_Seen]
) -> tuple[FloatArray, npt.NDArray[np.float64]]:
    """Return earlier pixels (N, 2) and the time since, s (N,); NaN where a feature is new."""
    assert features.track_ids is not None
    before = np.full_like(features.keypoints, np.nan)
    elapsed = np.full(features.count, np.nan)
    for seen in earlier:
        if len(seen.ids) == 0:
            continue
        at = np.minimum(np.searchsorted(seen.ids, features.track_ids), len(seen.ids) - 1)
        found = seen.ids[at] == features.track_ids
        before[found] = seen.pixels[at[found]]
        elapsed[found] = (stamp_ns - seen.stamp_ns) * 1e-9
    return before, elapsed

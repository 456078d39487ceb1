"""A frame as the map would show it: north up, at a tile's ground sampling distance."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from gps_denied_inference.pipeline.camera import CameraModel
from gps_denied_inference.pipeline.features import Features
from gps_denied_inference.pipeline.localization.prior import Vector, rotation
from gps_denied_inference.pipeline.rotations import ExtractorLike

Image = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float64]

Map = npt.NDArray[np.float32]
Evident = Callable[[Points], npt.NDArray[np.bool_]]

LATTICE = 6
"""px of the view between points that the lens is asked for."""
OUTSIDE = -1e4
"""px of the frame: where nothing of it is."""
EDGE_PX = 6.0
"""Keypoints nearer than this to the frame's edge, in px of the view, are of the edge itself."""


@dataclass(frozen=True, eq=False)
class View:
    """The ground under a frame, resampled.

    Attributes:
        image: uint8, as large as the extractor's input.
        gsd: m/px that the heights and headings assumed give it.
        rays_from_view: (3, 3), px of the view to the camera's normalised image plane.
        axis: (2,) px of the view where the optical axis goes.
        inside: uint8 (H, W), not 0 where the frame covers the view.
    """

    image: Image
    gsd: float
    rays_from_view: Points
    axis: Points
    inside: Image

    def rays(self, keypoints: npt.NDArray[np.floating]) -> Points:
        """Map px of the view (N, 2) to the normalised image plane (N, 2)."""
        homogeneous = np.column_stack([keypoints, np.ones(len(keypoints))]) @ self.rays_from_view.T
        return np.asarray(homogeneous[:, :2] / homogeneous[:, 2:], np.float64)

    def extract(self, extractor: ExtractorLike, tile_px: int, evident: Evident) -> Features:
        """Extract features, without those of the frame's own edge and of its sensor's noise.

        Args:
            extractor: of features.
            tile_px: width of the tiles that the features will be compared with: a matcher that
                scales positions by the size of the image is to scale both alike.
            evident: tells which rays (N, 2) of the frame show more than noise.
        """
        features = extractor.extract(self.image)
        column, row = np.rint(features.keypoints).astype(np.int64).T
        height, width = self.inside.shape
        within = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        keep = within.copy()
        keep[within] = self.inside[row[within], column[within]] > 0
        keep &= evident(self.rays(features.keypoints))
        return dataclasses.replace(
            features,
            keypoints=features.keypoints[keep],
            scores=features.scores[keep],
            descriptors=features.descriptors[keep],
            contrast=None,
            width=tile_px,
            height=tile_px,
        )


def view_from_above(
    frame: Image,
    camera: CameraModel,
    height: float,
    heading: float,
    gravity: Vector,
    gsd: float,
    size: tuple[int, int],
) -> View:
    """Resample a frame north-up.

    Args:
        frame: uint8 (H, W) or (H, W, 3).
        camera: of that frame.
        height: above ground, m.
        heading: of the image's top, rad clockwise from north.
        gravity: unit vector in the camera's frame.
        gsd: m/px of the view.
        size: width and height of the view, px; the axis goes through its middle.
    """
    width, tall = size
    centre = np.array([(width - 1) / 2.0, (tall - 1) / 2.0])
    turn = rotation(heading, gravity)
    axis = turn[:, 2]
    camera_at = -axis * height / -axis[2]  # from where the axis meets the ground
    ground_from_view = np.array(
        [[gsd, 0.0, -gsd * centre[0]], [0.0, -gsd, gsd * centre[1]], [0.0, 0.0, 1.0]]
    )
    rays_from_ground = turn.T @ np.column_stack([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], -camera_at])
    rays_from_view = rays_from_ground @ ground_from_view
    shrunk, factor = _shrink(frame, camera, height / max(-axis[2], 0.1), gsd)
    map_x, map_y = frame_from_view(rays_from_view, camera, factor, size)
    image = cv2.remap(shrunk, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    rows, columns = shrunk.shape[:2]
    covered = (map_x > 0) & (map_x < columns - 1) & (map_y > 0) & (map_y < rows - 1)
    inside = covered.astype(np.uint8)
    reach = 2 * math.ceil(EDGE_PX) + 1
    kernel = np.ones((reach, reach), np.uint8)
    inside = cv2.erode(inside, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=1)
    return View(np.asarray(image, np.uint8), gsd, rays_from_view, centre,
                np.asarray(inside, np.uint8))  # fmt: skip


def _shrink(
    frame: Image, camera: CameraModel, distance: float, gsd: float
) -> tuple[Image, tuple[float, float]]:
    """Average a frame that is finer than the view, which sampling alone would alias."""
    finer = gsd * camera.matrix[0, 0] / distance
    if finer < 1.2:
        return frame, (1.0, 1.0)
    rows, columns = frame.shape[:2]
    width, height = max(1, round(columns / finer)), max(1, round(rows / finer))
    small = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8), (width / columns, height / rows)


def frame_from_view(
    rays_from_view: Points,
    camera: CameraModel,
    factor: tuple[float, float],
    size: tuple[int, int],
) -> tuple[Map, Map]:
    """Return where each px of the view lies in the frame; far outside for what no lens shows there.

    The lens is asked every LATTICE px and in between interpolated.

    Args:
        rays_from_view: (3, 3), px of the view to the normalised image plane.
        camera: of the frame.
        factor: by which the frame was resized, columns and rows.
        size: width and height of the view.
    """
    # Nodes lie where cv2.resize takes the middle of a px that is made LATTICE times as large.
    columns, rows = (
        np.arange(-1, math.ceil(length / LATTICE) + 1) * LATTICE + (LATTICE - 1) / 2.0
        for length in size
    )
    x, y, z = (
        row[0] * columns[None, :] + (row[1] * rows + row[2])[:, None] for row in rays_from_view
    )
    # Beyond the calibrated field polynomials fold back: no ray much wider than the frame's corner.
    ahead, radius, widest = z > 1e-6, np.hypot(x, y), _widest(camera)
    within = ahead & (radius < widest * z)
    short = np.minimum(
        np.divide(1.0, z, out=np.full_like(z, np.inf), where=ahead),
        widest / np.maximum(radius, 1e-12),
    )
    pixels = camera.project(np.column_stack([(x * short).ravel(), (y * short).ravel()]))
    pixels = ((pixels + 0.5) * np.asarray(factor) - 0.5).astype(np.float32)
    at_x, at_y, seen = (
        _between(nodes.reshape(z.shape).astype(np.float32), size)
        for nodes in (pixels[:, 0], pixels[:, 1], within)
    )
    at_x[seen < 1.0], at_y[seen < 1.0] = OUTSIDE, OUTSIDE
    return at_x, at_y


def _widest(camera: CameraModel) -> float:
    """Return the greatest radius on the normalised image plane that is asked for."""
    right, bottom = camera.width - 1, camera.height - 1
    corners = np.array([[0.0, 0.0], [right, 0.0], [0.0, bottom], [right, bottom]])
    seen = camera.undistort(corners)
    radius = np.linalg.norm(seen[np.isfinite(seen).all(axis=1)], axis=1)
    return 1.1 * float(radius.max()) if radius.size else 5.0


def _between(nodes: Map, size: tuple[int, int]) -> Map:
    """Interpolate nodes, the first of them one px of theirs outside, at each px of the view."""
    tall, wide = nodes.shape
    large = cv2.resize(nodes, (wide * LATTICE, tall * LATTICE), interpolation=cv2.INTER_LINEAR)
    part = large[LATTICE : LATTICE + size[1], LATTICE : LATTICE + size[0]]
    return np.ascontiguousarray(part, np.float32)

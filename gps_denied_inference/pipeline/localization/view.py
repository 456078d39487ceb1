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

Evident = Callable[[Points], npt.NDArray[np.bool_]]

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
    if camera.distortion.any():
        map_x, map_y = _distorted(rays_from_view, camera, factor, size)
    else:
        matrix = _scaled(camera.matrix, factor) @ rays_from_view
        map_x, map_y = _grid(matrix, size)
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


def _scaled(matrix: Points, factor: tuple[float, float]) -> Points:
    """Return K of an image resized by ``factor``: pixel edges, not centres, are aligned."""
    fx, fy = factor
    resize = np.array([[fx, 0.0, 0.5 * fx - 0.5], [0.0, fy, 0.5 * fy - 0.5], [0.0, 0.0, 1.0]])
    return np.asarray(resize @ matrix, np.float64)


def _pixels(size: tuple[int, int]) -> Points:
    x, y = np.meshgrid(np.arange(size[0], dtype=np.float64), np.arange(size[1], dtype=np.float64))
    return np.stack([x.ravel(), y.ravel(), np.ones(x.size)])


def _grid(
    matrix: Points, size: tuple[int, int]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return where each px of the view lies in the frame; far outside for what is behind it."""
    x, y, z = matrix @ _pixels(size)
    ahead = z > 1e-6
    z = np.where(ahead, z, 1.0)
    shape = (size[1], size[0])
    map_x = np.where(ahead, x / z, -1e4).reshape(shape).astype(np.float32)
    map_y = np.where(ahead, y / z, -1e4).reshape(shape).astype(np.float32)
    return map_x, map_y


def _distorted(
    rays_from_view: Points,
    camera: CameraModel,
    factor: tuple[float, float],
    size: tuple[int, int],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return where each px of the view lies in the frame of a lens with distortion."""
    x, y, z = rays_from_view @ _pixels(size)
    # Beyond the calibrated field polynomials fold back: no ray wider than the frame's corner.
    corners = np.array([[0.0, 0.0], [camera.width - 1, 0.0], [0.0, camera.height - 1],
                        [camera.width - 1, camera.height - 1]])  # fmt: skip
    seen = camera.undistort(corners)
    radius = np.linalg.norm(seen[np.isfinite(seen).all(axis=1)], axis=1)
    widest = 1.1 * float(radius.max()) if radius.size else 5.0
    ahead = z > 1e-6
    z = np.where(ahead, z, 1.0)
    rays = np.column_stack([x / z, y / z])
    ahead &= np.linalg.norm(rays, axis=1) < widest
    pixels = camera.project(np.where(ahead[:, None], rays, 0.0))
    small = (pixels + 0.5) * np.asarray(factor) - 0.5
    small[~ahead] = -1e4
    shape = (size[1], size[0])
    return (
        small[:, 0].reshape(shape).astype(np.float32),
        small[:, 1].reshape(shape).astype(np.float32),
    )

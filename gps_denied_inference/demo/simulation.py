"""A simulated nadir flight over the sample scene, so that true motion between frames is known.

A pinhole camera looks down on flat ground that carries the scene. It flies a figure of eight, its
heading along the path, its height and tilt swinging, under light that changes, with sensor noise.

Frames: world (x east along scene columns, y south along scene rows, z down, m), camera (x right,
y down, z along the view). Pixel centres are at whole numbers, in the scene as in the images.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from gps_denied_inference.demo.frame import Frame
from gps_denied_inference.demo.scene import GROUND_SAMPLE, load_scene
from gps_denied_inference.errors import FrameError, InvalidParameterError

Matrix = npt.NDArray[np.float64]

_START_STAMP_NS = 1_700_000_000_000_000_000
_FOCAL_RATIO = 0.95  # focal length per image width: about 55 degrees across
_MEAN_HEIGHT = 5_500.0  # m, so that a 640 px image sees about 9 m per px
_FIGURE = 240  # frames that the whole figure of eight takes
_NOISE = 1.0  # grey levels, standard deviation


@dataclass(frozen=True)
class Pose:
    """Where the camera is: position in m from the scene's centre, height in m, angles in rad."""

    east: float
    south: float
    height: float
    heading: float
    roll: float
    pitch: float


class SimulatedFlight:
    """The demo's default source.

    Args:
        frames: number of frames, at least 2; 120 are one loop of the figure.
        width, height: px of the frames.
        rate: Hz, only for the stamps.
        seed: of the sensor noise.
        scene: uint8 (H, W, 3) RGB; the sample scene where None.

    Raises:
        InvalidParameterError: fewer than two frames.
    """

    kind = "simulated flight"
    note = ""

    def __init__(
        self,
        frames: int = 120,
        width: int = 640,
        height: int = 480,
        rate: float = 20.0,
        seed: int = 7,
        scene: npt.NDArray[np.uint8] | None = None,
    ) -> None:
        if frames < 2:
            raise InvalidParameterError("frames", frames, "at least 2")
        self.notes: list[str] = []
        self.refused: dict[str, FrameError] = {}
        self.name = "nadir view of a Landsat 7 scene east of San Francisco Bay"
        self._frames = frames
        self._width = width
        self._height = height
        self._period_ns = round(1e9 / rate)
        self._seed = seed
        self._scene = load_scene() if scene is None else scene
        focal = _FOCAL_RATIO * width
        self._camera = np.array(
            [[focal, 0.0, (width - 1) / 2.0], [0.0, focal, (height - 1) / 2.0], [0.0, 0.0, 1.0]]
        )

    def __len__(self) -> int:
        return self._frames

    def pose(self, index: int) -> Pose:
        """Return the camera's pose at a frame."""
        phase = _phase(index)
        east = 6_300.0 * math.sin(phase)
        south = 4_200.0 * math.sin(2.0 * phase)
        velocity_east = 6_300.0 * math.cos(phase)
        velocity_south = 2.0 * 4_200.0 * math.cos(2.0 * phase)
        return Pose(
            east=east,
            south=south,
            height=_MEAN_HEIGHT * (1.0 + 0.12 * math.sin(3.0 * phase)),
            # The image's top points along the flight: heading 0 is north, clockwise.
            heading=math.atan2(velocity_east, -velocity_south),
            roll=math.radians(3.0) * math.sin(5.0 * phase),
            pitch=math.radians(2.5) * math.sin(4.0 * phase + 0.5),
        )

    def projection(self, index: int) -> Matrix:
        """Return the homography (3, 3) from scene px to px of the frame."""
        pose = self.pose(index)
        rotation = _rotation_x(-pose.pitch) @ _rotation_y(-pose.roll) @ _rotation_z(-pose.heading)
        rows, columns = self._scene.shape[:2]
        # Ground point in m of scene px (u, v), and from it the view of the plane z = height.
        ground = np.array(
            [
                [GROUND_SAMPLE, 0.0, -GROUND_SAMPLE * (columns - 1) / 2.0 - pose.east],
                [0.0, GROUND_SAMPLE, -GROUND_SAMPLE * (rows - 1) / 2.0 - pose.south],
                [0.0, 0.0, pose.height],
            ]
        )
        homography = self._camera @ rotation @ ground
        return np.asarray(homography / homography[2, 2], np.float64)

    def motion(self, start: int, end: int) -> Matrix:
        """Return the true homography (3, 3) from px of frame ``start`` to px of frame ``end``."""
        homography = self.projection(end) @ np.linalg.inv(self.projection(start))
        return np.asarray(homography / homography[2, 2], np.float64)

    def render(self, index: int) -> npt.NDArray[np.uint8]:
        """Return the image of a frame, uint8 (H, W, 3) RGB."""
        view = cv2.warpPerspective(
            self._scene,
            self.projection(index),
            (self._width, self._height),
            flags=cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REFLECT_101,
        ).astype(np.float32)
        phase = _phase(index)
        across = np.linspace(-1.0, 1.0, self._width, dtype=np.float32)[None, :, None]
        down = np.linspace(-1.0, 1.0, self._height, dtype=np.float32)[:, None, None]
        # Light: exposure that swings, a bright side that turns with the flight, dark corners.
        gain = 0.9 + 0.25 * math.sin(2.0 * phase + 1.0)
        side = 0.12 * (math.cos(phase) * across + math.sin(phase) * down)
        corners = 1.0 - 0.18 * (across**2 + down**2)
        generator = np.random.default_rng((self._seed, index))
        noise = _NOISE * generator.standard_normal(view.shape, dtype=np.float32)
        lit = view * ((gain + side) * corners) + 10.0 * math.sin(3.0 * phase) + noise
        return np.asarray(np.clip(np.rint(lit), 0.0, 255.0), np.uint8)

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self._frames):
            stamp = _START_STAMP_NS + index * self._period_ns
            yield Frame(index, stamp, self.render(index), f"simulated frame {index}")


def _phase(index: int) -> float:
    return 2.0 * math.pi * index / _FIGURE


def _rotation_x(angle: float) -> Matrix:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])


def _rotation_y(angle: float) -> Matrix:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])


def _rotation_z(angle: float) -> Matrix:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])

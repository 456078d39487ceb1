"""A simulated nadir flight over the sample scene, so that true motion between frames is known.

A pinhole camera looks down on flat ground that carries the scene, and with relief on flat roofs at
three heights above it, which carry the scene turned. It flies a figure of eight, its
heading along the path, its height and tilt swinging, under light that changes, with sensor noise.

Frames: world (x east along scene columns, y south along scene rows, z down, m), camera (x right,
y down, z along the view). Pixel centres are at whole numbers, in the scene as in the images.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from gps_denied_inference.demo.frame import Frame, SourceKind
from gps_denied_inference.demo.scene import GROUND_SAMPLE, load_scene
from gps_denied_inference.errors import FrameError, InvalidParameterError

Matrix = npt.NDArray[np.float64]

_START_STAMP_NS = 1_700_000_000_000_000_000
_FOCAL_RATIO = 0.95  # focal length per image width: about 55 degrees across
_MEAN_HEIGHT = 5_500.0  # m, so that a 640 px image sees about 9 m per px
_FIGURE = 240  # frames that the whole figure of eight takes
_NOISE = 1.0  # grey levels, standard deviation
_ROOFS = (150.0, 350.0, 600.0)  # m above the ground: 3 to 11 % more motion than the ground's
_EAST_NORTH_UP = np.diag([1.0, -1.0, -1.0])  # from east, south, down
_PITCH, _SIDE = 62, 36  # scene px, of the grid that roofs stand on, and their side


@dataclass(frozen=True)
class Pose:
    """Where the camera is: position in m from the scene's centre, height in m, angles in rad."""

    east: float
    south: float
    height: float
    heading: float
    roll: float
    pitch: float


@dataclass(frozen=True)
class Manoeuvre:
    """How much the flight swings.

    Attributes:
        climb: share of the mean height, up and down.
        roll, pitch: rad, to either side.
    """

    climb: float = 0.12
    roll: float = math.radians(3.0)
    pitch: float = math.radians(2.5)


STEEP = Manoeuvre(0.30, math.radians(7.5), math.radians(7.5))
"""Height 30 % up and down, tilted by up to 10 degrees."""


class SimulatedFlight:
    """The demo's default source.

    Args:
        frames: number of frames, at least 2; 120 are one loop of the figure.
        width, height: px of the frames.
        rate: Hz, only for the stamps.
        seed: of the sensor noise.
        scene: uint8 (H, W, 3) RGB; the sample scene where None.
        relief: roofs stand on the ground; else it is flat.
        manoeuvre: how much the flight swings.
        ground_sample: m per px of the scene.
        scale: of the whole flight, its height as well as its figure.

    Attributes:
        scene: uint8 (H, W, 3) RGB.
        camera_matrix: (3, 3) px, of the frames.

    Raises:
        InvalidParameterError: fewer than two frames.
    """

    kind: SourceKind = "simulated flight"
    note = ""

    def __init__(
        self,
        frames: int = 120,
        width: int = 640,
        height: int = 480,
        rate: float = 20.0,
        seed: int = 7,
        scene: npt.NDArray[np.uint8] | None = None,
        relief: bool = False,
        manoeuvre: Manoeuvre | None = None,
        ground_sample: float = GROUND_SAMPLE,
        scale: float = 1.0,
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
        self._manoeuvre = manoeuvre or Manoeuvre()
        self._ground_sample = ground_sample
        self._scale = scale
        self.scene = load_scene() if scene is None else scene
        # Surfaces from the ground up: height in m, what it carries, and where it is.
        everywhere = np.full(self.scene.shape[:2], 255, np.uint8)
        self._surfaces = [(0.0, self.scene, everywhere)]
        if relief:
            self.name += ", with roofs"
            self._surfaces += _roofs(self.scene)
        focal = _FOCAL_RATIO * width
        self.camera_matrix = np.array(
            [[focal, 0.0, (width - 1) / 2.0], [0.0, focal, (height - 1) / 2.0], [0.0, 0.0, 1.0]]
        )

    def __len__(self) -> int:
        return self._frames

    def pose(self, index: int) -> Pose:
        """Return the camera's pose at a frame."""
        phase, swing = _phase(index), self._manoeuvre
        east = self._scale * 6_300.0 * math.sin(phase)
        south = self._scale * 4_200.0 * math.sin(2.0 * phase)
        velocity_east = 6_300.0 * math.cos(phase)
        velocity_south = 2.0 * 4_200.0 * math.cos(2.0 * phase)
        return Pose(
            east=east,
            south=south,
            height=self._scale * _MEAN_HEIGHT * (1.0 + swing.climb * math.sin(3.0 * phase)),
            # The image's top points along the flight: heading 0 is north, clockwise.
            heading=math.atan2(velocity_east, -velocity_south),
            roll=swing.roll * math.sin(5.0 * phase),
            pitch=swing.pitch * math.sin(4.0 * phase + 0.5),
        )

    def rotation(self, index: int) -> Matrix:
        """Return the rotation (3, 3) from the world's axes to the camera's at a frame."""
        pose = self.pose(index)
        return _rotation_x(-pose.pitch) @ _rotation_y(-pose.roll) @ _rotation_z(-pose.heading)

    def camera_to_enu(self, index: int) -> Matrix:
        """Return the rotation (3, 3) of a frame's camera to east, north, up."""
        return np.asarray(_EAST_NORTH_UP @ self.rotation(index).T, np.float64)

    def projection(self, index: int, above: float = 0.0) -> Matrix:
        """Return the homography (3, 3) from scene px to px of the frame.

        Args:
            above: m, of the plane that carries the scene, above the ground.
        """
        pose = self.pose(index)
        side = self._ground_sample
        rows, columns = self.scene.shape[:2]
        # Ground point in m of scene px (u, v), and from it the view of the plane z = height.
        ground = np.array(
            [
                [side, 0.0, -side * (columns - 1) / 2.0 - pose.east],
                [0.0, side, -side * (rows - 1) / 2.0 - pose.south],
                [0.0, 0.0, pose.height - above],
            ]
        )
        homography = self.camera_matrix @ self.rotation(index) @ ground
        return np.asarray(homography / homography[2, 2], np.float64)

    def motion(self, start: int, end: int) -> Matrix:
        """Return the ground's true homography (3, 3), from px of frame ``start`` to ``end``."""
        homography = self.projection(end) @ np.linalg.inv(self.projection(start))
        return np.asarray(homography / homography[2, 2], np.float64)

    def surfaces(self, index: int, points: npt.NDArray[np.floating]) -> npt.NDArray[np.intp]:
        """Tell what lies at points (N, 2) px of a frame: 0 is the ground, others are roofs."""
        seen = np.zeros(len(points), np.intp)
        for surface, (above, _, where) in enumerate(self._surfaces):
            back = np.asarray(np.linalg.inv(self.projection(index, above)), np.float64)
            at = np.rint(_transform(back, points)).astype(np.intp)
            x, y = at[:, 0], at[:, 1]
            rows, columns = self.scene.shape[:2]
            inside = (x >= 0) & (y >= 0) & (x < columns) & (y < rows)
            there = np.zeros(len(points), np.bool_)
            there[inside] = where[y[inside], x[inside]] > 0
            seen[there] = surface
        return seen

    def move(
        self, start: int, end: int, points: npt.NDArray[np.floating]
    ) -> npt.NDArray[np.float64]:
        """Return where points (N, 2) px of frame ``start`` truly are in frame ``end``.

        Each moves with what lies there; it may be hidden in frame ``end``, or out of it.
        """
        seen = self.surfaces(start, points)
        moved = np.zeros((len(points), 2))
        for surface, (above, _, _) in enumerate(self._surfaces):
            here = seen == surface
            back = np.linalg.inv(self.projection(start, above))
            moved[here] = _transform(self.projection(end, above) @ back, points[here])
        return moved

    def render(self, index: int) -> npt.NDArray[np.uint8]:
        """Return the image of a frame, uint8 (H, W, 3) RGB."""
        size = (self._width, self._height)
        view = np.zeros((self._height, self._width, 3), np.float32)
        for above, carried, where in self._surfaces:
            projection = self.projection(index, above)
            image = cv2.warpPerspective(
                carried, projection, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
            )
            if above == 0.0:
                view[:] = image
                continue
            # Opaque up to a soft edge of one px, as a lens draws it.
            cover = cv2.warpPerspective(where, projection, size).astype(np.float32)[..., None] / 255
            view += cover * (image - view)
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


def _transform(homography: Matrix, points: npt.NDArray[np.floating[Any]]) -> Matrix:
    moved = points.astype(np.float64) @ homography[:, :2].T + homography[:, 2]
    return np.asarray(moved[:, :2] / moved[:, 2:], np.float64)


def _roofs(
    scene: npt.NDArray[np.uint8],
) -> list[tuple[float, npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]:
    """Return surfaces above the ground: height in m, what it carries, and 255 where it is."""
    made = []
    rows, columns = scene.shape[:2]
    for turn, above in enumerate(_ROOFS):
        where = np.zeros((rows, columns), np.uint8)
        for row, y in enumerate(range(0, rows, _PITCH)):
            for column, x in enumerate(range(0, columns, _PITCH)):
                if (row + 2 * column) % len(_ROOFS) == turn:
                    where[y : y + _SIDE, x : x + _SIDE] = 255
        turned = cv2.resize(np.rot90(scene, turn + 1), (columns, rows))
        made.append((above, np.asarray(turned, np.uint8), where))
    return made

"""Scenes whose true motion is known, for contests between trackers.

A scene tells how far points tracked from one frame to another are from the truth: from where they
must be where the motion of every point is known, else from the epipolar line on which they must be.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from gps_denied_inference.demo.scene import load_scene
from gps_denied_inference.demo.simulation import SimulatedFlight

Image = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float64]
Errors = Callable[[int, int, Points, Points], Points]

EDGE = 9.0
"""px: points of a scene with relief that lie nearer to an edge may be on either side of it."""


@dataclass(frozen=True)
class Scene:
    """Successive frames and their truth.

    Attributes:
        name: for tables.
        images: uint8 (H, W).
        errors: of (start, end, points (N, 2) px of frame ``start``, where they are said to be in
            frame ``end``): (N,) px, NaN where the truth is not known.
        geometry: the tracker's setting that suits the scene.
        truth: what errors are measured against.
    """

    name: str
    images: list[Image]
    errors: Errors
    geometry: str
    truth: str = "position"


def flight(first: int, count: int, seed: int, relief: bool) -> Scene:
    """Return a part of the simulated flight, ground alone or with roofs at three heights."""
    source = SimulatedFlight(frames=first + count, seed=seed, relief=relief)
    images = [
        np.asarray(cv2.cvtColor(source.render(first + i), cv2.COLOR_RGB2GRAY), np.uint8)
        for i in range(count)
    ]
    around = EDGE * np.array([(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)])

    def errors(start: int, end: int, points: Points, found: Points) -> Points:
        off = source.move(first + start, first + end, points) - found
        away = np.hypot(off[:, 0], off[:, 1])
        if relief:
            kinds = [source.surfaces(first + start, points + shift) for shift in around]
            away[np.ptp(kinds, axis=0) > 0] = np.nan
        return away

    return Scene("flight with relief" if relief else "flat flight", images, errors, "homography")


_ROOFS = ((60, 40), (260, 120), (480, 60), (120, 300), (380, 330), (520, 260))
_SIDE = (90, 80)
_SPEED = 8.0


def roofs(extra: float, seed: int, count: int = 16) -> Scene:
    """Return flat ground that moves 8 px a frame, and roofs on it that move ``extra`` px more."""
    ground = cv2.cvtColor(load_scene(), cv2.COLOR_RGB2GRAY)
    ground = cv2.resize(ground, None, fx=1.6, fy=1.6, interpolation=cv2.INTER_CUBIC)
    carried = np.ascontiguousarray(ground[::-1, ::-1])
    carried = cv2.resize(carried, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)
    made = [_roofs_frame(ground, carried, extra, k, seed) for k in range(count)]

    def errors(start: int, end: int, points: Points, found: Points) -> Points:
        on_roof = made[start][1]
        inside = np.pad(on_roof, 9, mode="edge").astype(np.uint8)
        kernel = np.ones((19, 19), np.uint8)
        x, y = np.rint(points).astype(np.intp).T
        every = cv2.erode(inside, kernel)[y + 9, x + 9] > 0
        some = cv2.dilate(inside, kernel)[y + 9, x + 9] > 0
        way = (_SPEED + np.where(every, extra, 0.0)) * (end - start)
        away = np.hypot(points[:, 0] - way - found[:, 0], points[:, 1] - found[:, 1])
        away[every != some] = np.nan
        return away

    name = f"roofs {extra:g} px a frame faster"
    return Scene(name, [image for image, _ in made], errors, "homography")


def _roofs_frame(
    ground: Any, carried: Any, extra: float, k: int, seed: int
) -> tuple[Image, npt.NDArray[np.bool_]]:
    def shifted(image: Any, x: float, y: float, method: int) -> Any:
        move = np.array([[1, 0, x], [0, 1, y]], np.float32)
        return cv2.warpAffine(image, move, (640, 480), flags=method)

    image = shifted(ground, -100 - _SPEED * k, -150, cv2.INTER_LINEAR)
    on_roof = np.zeros((480, 640), np.bool_)
    width, height = _SIDE
    for n, (x, y) in enumerate(_ROOFS):
        for again in (0, 640):
            at = x + 100 - (_SPEED + extra) * k + again
            cover = np.full((height, width), 255, np.uint8)
            here = shifted(cover, at, y, cv2.INTER_NEAREST) > 0
            part = carried[n * 100 : n * 100 + height, 150 + n * 110 : 150 + n * 110 + width]
            image[here] = shifted(part, at, y, cv2.INTER_LINEAR)[here]
            on_roof |= here
    noise = np.random.default_rng((seed, k)).normal(0, 2, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8), on_roof


def euroc(folder: Path, count: int) -> Scene:
    """Return the last frames of a EuRoC excerpt: camera 0, its calibration, and the trajectory."""
    sensor = cv2.FileStorage(str(folder / "cam0" / "sensor.yaml"), cv2.FILE_STORAGE_READ)
    fx, fy, cx, cy = _numbers(sensor.getNode("intrinsics"))
    camera = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
    lens = np.array(_numbers(sensor.getNode("distortion_coefficients")))
    to_body = np.array(_numbers(sensor.getNode("T_BS").getNode("data"))).reshape(4, 4)
    with (folder / "cam0" / "data.csv").open() as file:
        rows = [row for row in csv.reader(file) if row and not row[0].startswith("#")]
    poses = np.loadtxt(folder / "groundtruth.txt")
    images, places = [], []
    for stamp, name in ((float(row[0]) * 1e-9, row[1].strip()) for row in rows[-count:]):
        nearest = int(np.argmin(np.abs(poses[:, 0] - stamp)))
        if abs(poses[nearest, 0] - stamp) > 0.005:
            continue
        image = cv2.imread(str(folder / "cam0" / "data" / name), cv2.IMREAD_GRAYSCALE)
        images.append(np.asarray(image, np.uint8))
        places.append(_pose(poses[nearest, 1:]) @ to_body)

    def errors(start: int, end: int, points: Points, found: Points) -> Points:
        motion = np.linalg.inv(places[end]) @ places[start]
        x, y, z = motion[:3, 3]
        essential = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ motion[:3, :3]
        before, now = (
            np.column_stack([cv2.undistortPoints(p[:, None], camera, lens)[:, 0], np.ones(len(p))])
            for p in (points, found)
        )
        line, back = before @ essential.T, now @ essential
        gradient = np.sum(line[:, :2] ** 2, axis=1) + np.sum(back[:, :2] ** 2, axis=1)
        away = np.abs(np.sum(line * now, axis=1)) / np.sqrt(gradient)
        return np.asarray(np.sqrt(2.0) * 0.5 * (fx + fy) * away, np.float64)

    return Scene("EuRoC V1_01", images, errors, "fundamental", "epipolar line")


def _numbers(node: Any) -> list[float]:
    return [node.at(i).real() for i in range(node.size())]


def _pose(values: Points) -> Points:
    """Return (4, 4) of a position and a quaternion x, y, z, w."""
    x, y, z, w = values[3:] / np.linalg.norm(values[3:])
    pose = np.eye(4)
    pose[:3, 3] = values[:3]
    pose[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return pose

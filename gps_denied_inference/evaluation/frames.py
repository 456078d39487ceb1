"""Frames whose place is known: a table beside images, or geotagged images."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gps_denied_inference.errors import ConfigurationError
from gps_denied_inference.evaluation.geotags import Geotags, read_geotags
from gps_denied_inference.images.files import IMAGE_SUFFIXES
from gps_denied_inference.pipeline.camera import CameraModel
from gps_denied_inference.pipeline.localization.prior import rotation
from gps_denied_inference.pipeline.localization.tiles import MapInfo

TABLES = ("frames.csv", "meta.csv")


@dataclass(frozen=True, eq=False)
class FrameRecord:
    """One frame and the truth about it; None is "not known".

    Attributes:
        path: of the image.
        stamp: s.
        axis: map ENU, m, where the optical axis meets the ground.
        camera: map ENU, m, above which spot the camera was.
        height: of the camera above ground, m.
        heading: of the image's top, rad clockwise from north.
        turn: (3, 3) rotation from the camera's frame to ENU.
        focal: focal length over the image's longer side.
    """

    path: Path
    stamp: float | None = None
    axis: complex | None = None
    camera: complex | None = None
    height: float | None = None
    heading: float | None = None
    turn: npt.NDArray[np.float64] | None = None
    focal: float | None = None


def read_frames(source: Path, info: MapInfo) -> list[FrameRecord]:
    """Read frames in their order.

    Args:
        source: a table (see docs/localization.md for its columns), a folder with ``frames.csv`` or
            ``meta.csv``, or a folder of images.
        info: the map, whose frame positions are brought to.

    Raises:
        ConfigurationError: there is nothing that can be used.
    """
    table = source if source.is_file() else next(
        (source / name for name in TABLES if (source / name).is_file()), None
    )  # fmt: skip
    if table is not None:
        return _from_table(table, info)
    if not source.is_dir():
        raise ConfigurationError(f"no frames at {source}: give a folder of images or a table")
    paths = sorted(p for p in source.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise ConfigurationError(
            f"{source} holds no images and no {' or '.join(TABLES)}: give the folder of the frames"
        )
    return [_from_tags(path, read_geotags(path), info) for path in paths]


def read_camera(path: Path) -> CameraModel:
    """Read ``camera.json``: fx_px, cx_px, cy_px, width, height; fy_px and d as they are.

    Raises:
        ConfigurationError: it cannot be read, or a value is missing.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        fx = float(values["fx_px"])
        k = [fx, 0.0, float(values["cx_px"]), 0.0, float(values.get("fy_px", fx)),
             float(values["cy_px"]), 0.0, 0.0, 1.0]  # fmt: skip
        return CameraModel.from_info(
            str(values.get("distortion_model", "plumb_bob")), k, values.get("d", []),
            int(values["width"]), int(values["height"]),
        )  # fmt: skip
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"camera file {path} cannot be used ({error}): it holds fx_px, cx_px, cy_px, width and "
            "height as JSON"
        ) from error


def _from_table(table: Path, info: MapInfo) -> list[FrameRecord]:
    try:
        with open(table, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError(f"table {table} cannot be read: {error}") from error
    if not rows or "frame" not in rows[0]:
        raise ConfigurationError(f"table {table} has no column 'frame' with rows under it")
    folder = table.parent / "images"
    folder = folder if folder.is_dir() else table.parent
    try:
        return [_from_row(row, folder, info) for row in rows]
    except ValueError as error:
        raise ConfigurationError(f"table {table} holds what is no number: {error}") from error


def _from_row(row: Mapping[str, str], folder: Path, info: MapInfo) -> FrameRecord:
    height, heading = _number(row, "agl_m"), _number(row, "yaw_deg", "flight_yaw_deg")
    turn = None
    if row.get("r00"):
        turn = np.array([[float(row[f"r{i}{j}"]) for j in range(3)] for i in range(3)])
    east, north = _number(row, "camera_x_m"), _number(row, "camera_y_m")
    places = (
        complex(east, north) if east is not None and north is not None else None,
        _place(row, info, "uav_"), _place(row, info, ""),
    )  # fmt: skip
    camera = next((place for place in places if place is not None), None)
    axis = _place(row, info, "image_centre_")
    if axis is None and camera is not None:
        axis = camera if turn is None or height is None else camera + _lean(turn, height)
    return FrameRecord(
        folder / row["frame"], _number(row, "stamp_s"), axis, camera, height,
        None if heading is None else math.radians(heading), turn,
    )  # fmt: skip


def _from_tags(path: Path, tags: Geotags, info: MapInfo) -> FrameRecord:
    heading = None if tags.yaw is None else math.radians(tags.yaw)
    turn, axis, camera = None, None, None
    if tags.lat is not None and tags.lon is not None:
        axis = camera = complex(*info.to_enu(tags.lat, tags.lon))
    if heading is not None and tags.pitch is not None and tags.pitch < -30.0:
        lean = math.radians(tags.pitch)
        turn = rotation(heading, np.array([0.0, math.cos(lean), -math.sin(lean)]))
        if camera is not None and tags.height is not None:
            axis = camera + _lean(turn, tags.height)
    return FrameRecord(path, None, axis, camera, tags.height, heading, turn, tags.focal)


def _lean(turn: npt.NDArray[np.float64], height: float) -> complex:
    """Return how far from below the camera its axis meets the ground."""
    ahead = turn[:, 2] * height / max(-float(turn[2, 2]), 1e-3)
    return complex(ahead[0], ahead[1])


def _place(row: Mapping[str, str], info: MapInfo, prefix: str) -> complex | None:
    lat, lon = _number(row, f"{prefix}lat_deg"), _number(row, f"{prefix}lon_deg")
    return None if lat is None or lon is None else complex(*info.to_enu(lat, lon))


def _number(row: Mapping[str, str], *names: str) -> float | None:
    for name in names:
        text = (row.get(name) or "").strip()
        if text:
            value = float(text)
            if not math.isfinite(value):
                raise ValueError(f"{name} = {text}")
            return value
    return None

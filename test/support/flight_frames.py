"""A simulated flight as a folder that ``gdi evaluate`` reads, with exact poses."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable
from pathlib import Path

import cv2

from gps_denied_inference.demo.simulation import SimulatedFlight
from gps_denied_inference.pipeline.localization.prior import heading_and_gravity

PERIOD = 0.1  # s


def write_frames(flight: SimulatedFlight, indices: Iterable[int], folder: Path) -> Path:
    """Write images, ``frames.csv`` and ``camera.json``; return the folder."""
    (folder / "images").mkdir(parents=True)
    rows = []
    for index in indices:
        name = f"{index:03d}.png"
        image = flight.render(index)
        assert cv2.imwrite(str(folder / "images" / name), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        pose, turn = flight.pose(index), flight.camera_to_enu(index)
        heading, _ = heading_and_gravity(turn)
        rows.append({
            "frame": name, "stamp_s": PERIOD * index, "camera_x_m": pose.east,
            "camera_y_m": -pose.south, "agl_m": pose.height, "yaw_deg": math.degrees(heading),
            **{f"r{i}{j}": turn[i, j] for i in range(3) for j in range(3)},
        })  # fmt: skip
    with (folder / "frames.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    matrix = flight.camera_matrix
    height, width = image.shape[:2]
    (folder / "camera.json").write_text(json.dumps({
        "fx_px": matrix[0, 0], "cx_px": matrix[0, 2], "cy_px": matrix[1, 2], "width": width,
        "height": height,
    }))  # fmt: skip
    return folder

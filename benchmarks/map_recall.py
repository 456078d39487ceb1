"""How far down the list of alike tiles the right one stands, without any prior of position.

Run from the source tree, with a prepared map and a folder that holds ``frames.csv`` and
``images/``: ``python3 -m benchmarks.map_recall town.map flight --fx 825 --yaw yaw_deg``.
A frame counts as found at k when one of the two tiles whose middles are nearest to the middle of
what it shows is among the k most alike.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import math
from pathlib import Path

import cv2
import numpy as np

from gps_denied_inference.maps.prepare import engine_settings
from gps_denied_inference.maps.store import MapStore
from gps_denied_inference.networks import Networks
from gps_denied_inference.pipeline.extractor import Extractor
from gps_denied_inference.pipeline.features import Features
from gps_denied_inference.settings import Settings

AT = (1, 5, 10, 20, 40)
_EDGE = 13


def north_up(
    image: np.ndarray, scale: float, yaw: float, side: int, extractor: Extractor
) -> Features:
    """Return the features of a frame turned by ``yaw``, rad, and scaled to a tile's."""
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    height, width = small.shape
    middle = (width - 1) / 2, (height - 1) / 2
    turn = cv2.getRotationMatrix2D(middle, -math.degrees(yaw), 1.0)
    turn[:, 2] += [(side - 1) / 2 - middle[0], (side - 1) / 2 - middle[1]]
    view = cv2.warpAffine(small, turn, (side, side), borderMode=cv2.BORDER_REPLICATE)
    whole = cv2.warpAffine(np.full_like(small, 255), turn, (side, side))
    shown = cv2.erode(whole, np.ones((_EDGE, _EDGE), np.uint8))
    found = extractor.extract(np.asarray(view, np.uint8))
    at = np.clip(np.rint(found.keypoints).astype(int), 0, side - 1)
    kept = shown[at[:, 1], at[:, 0]] > 0
    return dataclasses.replace(
        found, keypoints=found.keypoints[kept], scores=found.scores[kept],
        descriptors=found.descriptors[kept],
    )  # fmt: skip


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Recall of the maps' global descriptor.")
    parser.add_argument("map", type=Path)
    parser.add_argument("frames", type=Path, help="folder with frames.csv and images/")
    parser.add_argument("--fx", type=float, required=True, help="focal length, px")
    parser.add_argument("--yaw", required=True, help="column of the heading, degrees")
    parser.add_argument("--off", type=float, default=0.0, help="degrees that it is wrong by")
    parser.add_argument("--every", type=int, default=1, help="take each n-th frame")
    args = parser.parse_args()
    store = MapStore(args.map)
    info = store.info
    values = {"model": info.model, "max_keypoints": info.max_keypoints, "device": "cpu"}
    networks = Networks(engine_settings(Settings.from_mapping(values), info.tile_px))
    extractor = networks.extractor(info.max_keypoints)
    _, centres = store.centres(0)
    _, tiles = store.descriptors(0)
    ranks = []
    with (args.frames / "frames.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[:: args.every]
    for row in rows:
        image = cv2.imread(str(args.frames / "images" / row["frame"]), cv2.IMREAD_GRAYSCALE)
        scale = float(row["agl_m"]) / args.fx / info.levels[0]
        yaw = math.radians(float(row[args.yaw]) + args.off)
        features = north_up(np.asarray(image), scale, yaw, info.tile_px, extractor)
        order = np.argsort(-(tiles @ store.describe(features)), kind="stable")
        place = info.to_enu(float(row["image_centre_lat_deg"]), float(row["image_centre_lon_deg"]))
        right = np.argsort(np.hypot(*(centres - place).T))[:2]
        ranks.append(int(np.flatnonzero(np.isin(order, right)).min()))
    found = "  ".join(f"@{k} {np.mean(np.array(ranks) < k):.2f}" for k in AT)
    print(f"{args.map.name}: {len(tiles)} tiles, {len(ranks)} frames, heading off {args.off:g}")
    print(f"recall {found}")
    networks.close()
    store.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Fixes of real frames on real maps, with the networks that fly."""

from __future__ import annotations

import csv
import json
import math
import os

import cv2
import numpy as np
import pytest
from memory_map import MemoryMap

from gps_denied_inference.errors import InputMismatchError
from gps_denied_inference.pipeline.camera import CameraModel
from gps_denied_inference.pipeline.localization.localizer import FrameLocalizer
from gps_denied_inference.pipeline.localization.plan import Optics
from gps_denied_inference.pipeline.localization.prior import Prior, heading_and_gravity
from gps_denied_inference.session import InferenceSession
from gps_denied_inference.settings import Settings

TILE, KEYPOINTS = 512, 512
EVERY = 1 if os.environ.get("GDI_LONG_TESTS") else 5


@pytest.fixture(scope="module")
def network():
    """The session's extractor and matcher, as the node would load them."""
    session = InferenceSession(
        Settings.from_mapping({
            "task": "match", "matcher": "lighterglue", "image_width": TILE, "image_height": TILE,
            "max_keypoints": KEYPOINTS, "warmup_iterations": 1, "threads": 1, "device": "cpu",
        })
    )  # fmt: skip
    session.open()
    yield session
    session.close()


def folder(shared_data, name):
    if not (shared_data / name).is_dir():
        pytest.skip(f"no {name} in {shared_data}")
    return shared_data / name


def grey(path):
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert image is not None, path
    return image


def rows(path):
    with open(path / "frames.csv", newline="") as file:
        return list(csv.DictReader(file))


def localizer_on(world, network):
    return FrameLocalizer(world, network._extractor, network.streams[0].matcher, (TILE, TILE))


@pytest.fixture(scope="module")
def fengyuan(shared_data, network):
    """Map at 0.32 m/px, and frames with height, heading and where their middle lies."""
    path = folder(shared_data, "fengyuan_dev")
    world = MemoryMap(grey(path / "map.jpg"), 0.1621, network._extractor, TILE, 0.3242)
    frames = [
        (
            grey(path / "images" / row["frame"]),
            float(row["agl_m"]),
            math.radians(float(row["flight_yaw_deg"])),
            world.at(float(row["image_centre_map_x"]), float(row["image_centre_map_y"])),
        )
        for row in rows(path)[::EVERY]
    ]
    return localizer_on(world, network), frames


@pytest.mark.parametrize("prior", ["75 m", "no position", "no heading"])
def test_fengyuan_is_found_under_every_prior(fengyuan, prior):
    localizer, frames = fengyuan
    random = np.random.default_rng(5)
    off = []
    for image, height, heading, truth in frames:
        known = {"height": height, "height_sigma": 0.05 * height}
        if prior != "no heading":
            known |= {"heading": heading, "heading_sigma": math.radians(5.0)}
        if prior == "75 m":
            near = truth + complex(*random.normal(0.0, 75.0, 2))
            known |= {"position": (near.real, near.imag), "position_sigma": 75.0}
        attempt = localizer.locate(image, Prior(**known), Optics.assumed(1600, 900))
        assert attempt.fix is not None, attempt.reason
        assert np.linalg.eigvalsh(attempt.fix.covariance)[0] > 0.0
        off.append(abs(attempt.fix.at - truth))
    assert max(off) < 25.0
    assert np.median(off) <= 2.0


def test_village_axis_camera_and_covariance(shared_data, network):
    path = folder(shared_data, "village_dev")
    camera = json.loads((path / "camera.json").read_text())
    k = [camera["fx_px"], 0, camera["cx_px"], 0, camera["fx_px"], camera["cy_px"], 0, 0, 1]
    optics = Optics(CameraModel.from_info("", k, [], 960, 540))
    world = MemoryMap(grey(path / "map.jpg"), 0.6, network._extractor, TILE)
    localizer = localizer_on(world, network)
    off, camera_off, inside = [], [], 0
    chosen = rows(path)[3 :: 2 * EVERY]
    for row in chosen:
        turn = np.array([[float(row[f"r{i}{j}"]) for j in range(3)] for i in range(3)])
        heading, down = heading_and_gravity(turn)
        height = float(row["agl_m"])
        truth = world.at(float(row["axis_map_x"]), float(row["axis_map_y"]))
        attempt = localizer.locate(
            grey(path / "images" / row["frame"]),
            Prior(height=1.04 * height, height_sigma=0.05 * height, heading=heading,
                  heading_sigma=math.radians(5.0), down=tuple(down), down_sigma=0.005),
            optics,
        )  # fmt: skip
        fix = attempt.fix
        if fix is None:
            continue
        away = fix.at - truth
        vector = np.array([away.real, away.imag])
        off.append(abs(away))
        inside += vector @ np.linalg.solve(fix.covariance, vector) < 6.18
        axis = turn[:, 2] * height / -turn[2, 2]
        at = complex(truth.real - axis[0], truth.imag - axis[1])
        camera_off.append(abs(complex(*fix.camera[:2]) - at) / height)
        assert abs(fix.camera[2] - height) < 0.03 * height
    assert len(off) >= 0.9 * len(chosen)
    assert np.median(off) <= 0.6
    assert np.median(camera_off) <= 0.01
    assert inside >= 0.8 * len(off)


def test_frames_that_are_not_on_the_map_get_no_fix(shared_data, fengyuan):
    localizer, _ = fengyuan
    random = np.random.default_rng(2)
    noise = [
        np.clip(128 + random.normal(0, sigma, (540, 960)), 0, 255).astype(np.uint8)
        for sigma in (2, 20)
    ]
    elsewhere = sorted((folder(shared_data, "caliterra") / "images").glob("*.jpg"))[:: 15 * EVERY]
    own = sorted((folder(shared_data, "fengyuan_dev") / "images").glob("*.jpg"))[0]
    images = [*noise, np.zeros((540, 960), np.uint8), *map(grey, elsewhere)]
    images.append(cv2.GaussianBlur(grey(own), (0, 0), 40.0))
    images.append(np.ascontiguousarray(np.tile(grey(own)[300:390, 500:596], (6, 10))))
    for image in images:
        height, width = image.shape
        attempt = localizer.locate(
            image, Prior(height=120.0, height_sigma=18.0), Optics.assumed(width, height)
        )
        assert attempt.fix is None
        assert attempt.reason


def test_a_map_of_another_network_is_refused(fengyuan, network):
    localizer, frames = fengyuan
    image, height, heading, _ = frames[0]
    source = localizer._tools.source
    other = type("Other", (), {
        "info": type("Info", (), {**vars(source.info), "model_sha256": "b" * 64}),
    })()  # fmt: skip
    with pytest.raises(InputMismatchError, match="prepare the map"):
        localizer_on(other, network).locate(
            image, Prior(height=height, height_sigma=1.0, heading=heading, heading_sigma=0.1),
            Optics.assumed(1600, 900),
        )  # fmt: skip

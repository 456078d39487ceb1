"""Positions of the flight over the map, held against the truth; and what makes it fail."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("pyproj", reason="maps need pyproj")

from gps_denied_inference.demo.map_flight import MapFlight, Position, failures, in_words, summarise
from gps_denied_inference.demo.map_pictures import draw
from gps_denied_inference.demo.scene import GROUND_SAMPLE, load_scene
from gps_denied_inference.demo.scene_map import another_day, engine_parameters, truth
from gps_denied_inference.demo.simulation import STEEP, SimulatedFlight
from gps_denied_inference.pipeline.localization.prior import heading_and_gravity

FLIGHT = SimulatedFlight(frames=20, manoeuvre=STEEP)


def flown(off: complex = 20 + 0j, sigma: float = 25.0, frames: int = 20, **other: Any) -> MapFlight:
    def positions(step: int) -> list[Position]:
        return [
            Position(index, truth(FLIGHT, index) + off, np.eye(2) * sigma**2)
            for index in range(0, frames, step)
        ]

    values = {"published": 20, "answered": 20, "searched": 5, "first_fix": 1, "exit_code": 0,
              "fixes": positions(4), "followed": positions(1)[1:], "duration": 3.0}  # fmt: skip
    return MapFlight(**{**values, **other})


def test_positions_are_held_against_the_truth() -> None:
    said = summarise(FLIGHT, flown())
    assert said["fixes"] == 5
    assert said["error_m_p50"] == pytest.approx(20.0)
    assert said["followed_error_m_max"] == pytest.approx(20.0)
    assert said["inside_2_sigma_share"] == 1.0
    assert said["followed_share"] == 1.0
    assert failures(said) == []
    assert "0.7 px of the map" in in_words(said)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"off": 9 * GROUND_SAMPLE + 0j}, "a fix is 270 m off"),
        ({"off": 4 * GROUND_SAMPLE + 0j}, "half of the fixes are more than 120 m off"),
        ({"sigma": 1.0}, "0% of the fixes are within their own two sigmas"),
        ({"frames": 9}, "of the frames after the first fix have a position"),
        ({"first_fix": 15}, "the first fix came after 15 searched frames"),
        ({"exit_code": 3}, "the node's process ended with 3"),
        ({"fixes": [], "followed": [], "first_fix": None}, "none of 5 frames was found on the map"),
    ],
)
def test_what_is_not_as_it_should_be_is_said(changes: dict[str, Any], words: str) -> None:
    said = summarise(FLIGHT, flown(**changes))
    assert any(words in line for line in failures(said)), failures(said)
    assert "nan" not in in_words(said)


@pytest.mark.parametrize("found", [flown(), flown(fixes=[], followed=[], first_fix=None)])
def test_the_picture_is_drawn_with_and_without_fixes(found: MapFlight) -> None:
    picture = cv2.imdecode(np.frombuffer(draw(FLIGHT, found), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (920, 1600, 3)


def test_the_map_has_other_light_and_colours() -> None:
    scene = load_scene()
    chart = another_day(scene)
    assert chart.shape == scene.shape
    assert chart[..., 1].mean() > chart[..., 0].mean() + 10.0  # green where the scene is red
    assert scene[..., 0].mean() > scene[..., 1].mean() + 10.0
    assert np.ptp(chart) < 200


def test_the_attitude_is_that_of_the_frames() -> None:
    index = 12
    turn, pose = FLIGHT.camera_to_enu(index), FLIGHT.pose(index)
    assert turn @ turn.T == pytest.approx(np.eye(3), abs=1e-12)
    assert np.linalg.det(turn) == pytest.approx(1.0)
    heading, _ = heading_and_gravity(turn)
    assert math.cos(heading - pose.heading) > math.cos(math.radians(3.0))
    # A ray through a pixel meets the ground where the projection says.
    matrix, pixel = FLIGHT.camera_matrix, np.array([500.0, 100.0, 1.0])
    ray = turn @ np.linalg.inv(matrix) @ pixel
    ground = truth(FLIGHT, index) + complex(*ray[:2]) * pose.height / -ray[2]
    u, v, w = np.linalg.inv(FLIGHT.projection(index)) @ pixel
    rows, columns = FLIGHT.scene.shape[:2]
    east, south = (u / w - (columns - 1) / 2) * 30.0, (v / w - (rows - 1) / 2) * 30.0
    assert ground == pytest.approx(complex(east, -south), abs=1e-3)


def test_the_engine_of_the_tiles_shares_what_the_node_is_told() -> None:
    told = {"threads": "1", "device": "cpu", "max_keypoints": "9", "thermal_dwell": "2.0"}
    assert engine_parameters(told) == {"threads": 1, "device": "cpu"}

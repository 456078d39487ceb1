"""What is known before: refused where it is half known; rotations there and back."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gps_denied_inference.errors import InvalidParameterError
from gps_denied_inference.pipeline.localization.prior import (
    Prior,
    heading_and_gravity,
    rotation,
)

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"position": (0.0, 0.0)}, "position_sigma"),
        ({"position_sigma": 5.0}, "position"),
        ({"position": (NAN, 0.0), "position_sigma": 5.0}, "position"),
        ({"position": (0.0, 0.0), "position_sigma": 0.0}, "position_sigma"),
        ({"position": (0.0, 0.0), "position_sigma": INF}, "position_sigma"),
        ({"height": -3.0, "height_sigma": 1.0}, "height"),
        ({"height": 100.0, "height_sigma": NAN}, "height_sigma"),
        ({"heading": INF, "heading_sigma": 0.1}, "heading"),
        ({"heading": 1.0}, "heading_sigma"),
        ({"down": (0.0, 0.0, 0.0), "down_sigma": 0.1}, "down"),
        ({"down": (0.0, NAN, 1.0), "down_sigma": 0.1}, "down"),
    ],
)
def test_what_is_half_known_or_no_number_is_refused(values, named):
    with pytest.raises(InvalidParameterError, match=named):
        Prior(**values)


def test_nothing_need_be_known():
    assert Prior().gravity.tolist() == [0.0, 0.0, 1.0]


@given(heading=st.floats(-3.1, 3.1), roll=st.floats(-0.7, 0.7), pitch=st.floats(-0.7, 0.7))
def test_a_rotation_is_its_heading_and_gravity(heading, roll, pitch):
    gravity = np.array([math.tan(roll), math.tan(pitch), 1.0])
    gravity /= np.linalg.norm(gravity)
    matrix = rotation(heading, gravity)
    assert matrix @ matrix.T == pytest.approx(np.eye(3), abs=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(1.0)
    assert matrix @ gravity == pytest.approx([0.0, 0.0, -1.0], abs=1e-12)
    back, down = heading_and_gravity(matrix)
    assert back == pytest.approx(heading, abs=1e-9)
    assert down == pytest.approx(gravity, abs=1e-12)


def test_the_top_of_the_image_points_to_the_heading():
    east_up = rotation(math.radians(90.0), np.array([0.0, 0.0, 1.0]))
    assert east_up @ [0.0, -1.0, 0.0] == pytest.approx([1.0, 0.0, 0.0], abs=1e-12)
    assert east_up @ [1.0, 0.0, 0.0] == pytest.approx([0.0, -1.0, 0.0], abs=1e-12)

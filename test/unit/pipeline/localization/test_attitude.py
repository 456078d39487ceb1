"""From the body's attitude to the camera's, and back."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gps_denied_inference.errors import InvalidParameterError
from gps_denied_inference.pipeline.localization.attitude import (
    CameraAttitude,
    body_of,
    lean,
    matrix_of,
    mount,
    quaternion_of,
)

SMALL = st.floats(-0.6, 0.6)
ANGLES = st.floats(-math.pi, math.pi)


def quaternion(yaw: float, pitch: float, roll: float) -> tuple[float, float, float, float]:
    cr, sr, cp, sp = math.cos(roll), math.sin(roll), math.cos(pitch), math.sin(pitch)
    cy, sy = math.cos(yaw), math.sin(yaw)
    turn = (
        np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
        @ np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
        @ np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    )
    return quaternion_of(turn)


@given(ANGLES, SMALL, SMALL)
def test_quaternions_and_matrices_are_inverse(yaw, pitch, roll):
    q = quaternion(yaw, pitch, roll)
    assert np.allclose(quaternion_of(matrix_of(q)), q, atol=1e-9)
    assert np.allclose(matrix_of(q) @ matrix_of(q).T, np.eye(3), atol=1e-9)


@pytest.mark.parametrize(("yaw", "heading"), [(0.0, 90.0), (90.0, 0.0), (180.0, 270.0)])
def test_a_level_body_looks_straight_down_with_the_top_ahead(yaw, heading):
    q = quaternion(math.radians(yaw), 0.0, 0.0)
    seen = CameraAttitude.of_body(q, mount(0.0, 0.0, 0.0), 0.1, 0.1)
    assert math.cos(seen.heading - math.radians(heading)) == pytest.approx(1.0)
    assert np.allclose(seen.gravity, (0.0, 0.0, 1.0), atol=1e-9)


def test_a_nose_up_body_sees_what_lies_ahead():
    # REP-103: pitch is positive nose down; nose up turns the view forward.
    q = quaternion(math.radians(90.0), math.radians(-10.0), 0.0)  # flies north, nose up
    seen = CameraAttitude.of_body(q, mount(0.0, 0.0, 0.0), 0.1, 0.1)
    away = lean(seen.heading, seen.gravity, 100.0)
    assert away.imag == pytest.approx(100.0 * math.tan(math.radians(10.0)))
    assert away.real == pytest.approx(0.0, abs=1e-9)


def test_a_body_that_leans_to_the_right_sees_what_lies_left():
    q = quaternion(math.radians(90.0), 0.0, math.radians(10.0))  # flies north, right side down
    seen = CameraAttitude.of_body(q, mount(0.0, 0.0, 0.0), 0.1, 0.1)
    away = lean(seen.heading, seen.gravity, 100.0)
    assert away.real == pytest.approx(-100.0 * math.tan(math.radians(10.0)))


def test_a_camera_tilted_forward_on_the_body_sees_what_lies_ahead():
    q = quaternion(math.radians(90.0), 0.0, 0.0)
    seen = CameraAttitude.of_body(q, mount(0.0, math.radians(-30.0), 0.0), 0.1, 0.1)
    away = lean(seen.heading, seen.gravity, 100.0)
    assert away.imag == pytest.approx(100.0 * math.tan(math.radians(30.0)))


@given(ANGLES, SMALL, SMALL, SMALL, SMALL, ANGLES)
def test_the_body_comes_back_from_the_camera(yaw, pitch, roll, about_x, about_y, about_z):
    q, mounted = quaternion(yaw, pitch, roll), mount(about_x, about_y, about_z)
    seen = CameraAttitude.of_body(q, mounted, 0.1, 0.1)
    assert seen is not None
    back = body_of(seen.heading, seen.gravity, mounted)
    assert np.allclose(matrix_of(back), matrix_of(q), atol=1e-6)


@pytest.mark.parametrize("values", [(0, 0, 0, 0), (math.nan, 0, 0, 1)])
def test_no_attitude_is_made_of_nothing(values):
    with pytest.raises(InvalidParameterError):
        CameraAttitude.of_body(values, mount(0, 0, 0), 0.1, 0.1)

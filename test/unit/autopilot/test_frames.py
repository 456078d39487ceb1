"""Frames and units of the autopilot link, against rotations written out and library formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gps_denied_inference.autopilot import frames
from gps_denied_inference.errors import InvalidParameterError

ANGLES = st.floats(-math.pi, math.pi)
COORDINATES = st.floats(-1e5, 1e5)
VECTORS = st.tuples(COORDINATES, COORDINATES, COORDINATES)
ENU_TO_NED = np.array([[0, 1, 0], [1, 0, 0], [0, 0, -1]], float)
FLU_TO_FRD = np.diag([1.0, -1.0, -1.0])


def matrix(w: float, x: float, y: float, z: float) -> np.ndarray:
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


@given(VECTORS)
def test_vectors_turn_and_turn_back(vector):
    assert np.allclose(frames.enu_to_ned(vector), ENU_TO_NED @ vector)
    assert np.allclose(frames.flu_to_frd(vector), FLU_TO_FRD @ vector)
    assert frames.enu_to_ned(frames.enu_to_ned(vector)) == tuple(vector)
    assert frames.flu_to_frd(frames.flu_to_frd(vector)) == tuple(vector)


@given(ANGLES, ANGLES, ANGLES)
def test_an_attitude_is_the_same_rotation_in_the_other_axes(roll, pitch, yaw):
    w, x, y, z = frames.quaternion_of_euler(roll, pitch, yaw)
    flu_to_enu = matrix(w, x, y, z)
    sent = frames.attitude_to_mavlink((x, y, z, w))
    assert np.allclose(matrix(*sent), ENU_TO_NED @ flu_to_enu @ FLU_TO_FRD, atol=1e-12)
    assert sent[0] >= 0.0
    back = frames.attitude_to_ros(sent)
    assert np.allclose(matrix(back[3], *back[:3]), flu_to_enu, atol=1e-12)


@given(ANGLES)
def test_a_yaw_to_the_east_is_a_heading_of_ninety_degrees(yaw):
    sent = frames.attitude_to_mavlink((0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2)))
    heading = math.atan2(2 * (sent[0] * sent[3]), 1 - 2 * sent[3] ** 2) % (2 * math.pi)
    difference = heading - frames.compass_of_yaw(yaw)
    assert math.isclose(math.cos(difference), 1.0, abs_tol=1e-9)


@given(ANGLES, ANGLES, ANGLES)
def test_euler_angles_are_aerospace_ones(roll, pitch, yaw):
    cr, sr, cp, sp = math.cos(roll), math.sin(roll), math.cos(pitch), math.sin(pitch)
    cy, sy = math.cos(yaw), math.sin(yaw)
    turned = (
        np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
        @ np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
        @ np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    )
    assert np.allclose(matrix(*frames.quaternion_of_euler(roll, pitch, yaw)), turned, atol=1e-12)


@pytest.mark.parametrize("values", [(0, 0, 0, 0), (math.nan, 0, 0, 1), (math.inf, 0, 0, 0)])
def test_no_attitude_is_made_of_nothing(values):
    with pytest.raises(InvalidParameterError):
        frames.attitude_to_mavlink(values)


@given(st.lists(st.floats(-10, 10), min_size=36, max_size=36))
def test_covariances_keep_what_they_say_of_each_axis(values):
    root = np.array(values).reshape(6, 6)
    covariance = root @ root.T
    upper = frames.pose_covariance_to_mavlink(covariance.ravel())
    back = np.zeros((6, 6))
    back[np.triu_indices(6)] = upper
    diagonal = np.diag(back)
    assert np.allclose(diagonal, np.diag(covariance)[[1, 0, 2, 4, 3, 5]])
    full = back + np.triu(back, 1).T
    assert np.allclose(np.linalg.eigvalsh(full), np.linalg.eigvalsh(covariance), atol=1e-6)
    assert full[0, 2] == pytest.approx(-covariance[1, 2])
    body = frames.body_covariance_to_mavlink(covariance.ravel())
    assert body[0] == pytest.approx(covariance[0, 0])
    assert body[1] == pytest.approx(-covariance[0, 1])


@given(st.floats(-90, 90), st.floats(-360, 360))
def test_degrees_come_back_to_a_centimetre(latitude, longitude):
    lat, lon = frames.degrees_e7(latitude, longitude)
    assert abs(lat * 1e-7 - latitude) <= 1e-7
    assert -1_800_000_000 <= lon <= 1_800_000_000
    assert math.isclose(math.cos(math.radians(lon * 1e-7 - longitude)), 1.0, abs_tol=1e-12)


@pytest.mark.parametrize("place", [(91.0, 0.0), (math.nan, 0.0), (0.0, math.inf)])
def test_places_that_are_none_are_refused(place):
    with pytest.raises(InvalidParameterError):
        frames.degrees_e7(*place)


@given(st.integers(0, 10**19), st.integers(0, 10**9))
def test_the_wrapped_time_runs_on_to_a_millisecond_in_a_float32(start, step):
    first, second = (float(np.float32(frames.wrapped_seconds(t))) for t in (start, start + step))
    assert 0.0 <= first <= frames.WRAP_PERIOD
    elapsed = (second - first) % frames.WRAP_PERIOD
    wrong = abs(elapsed - step * 1e-9)
    assert min(wrong, frames.WRAP_PERIOD - wrong) < 1e-3


@given(st.floats(0.01, 100), st.floats(0.01, 100), ANGLES)
def test_the_horizontal_sigma_is_that_of_the_worst_direction(a, b, turn):
    c, s = math.cos(turn), math.sin(turn)
    rotation = np.array([[c, -s], [s, c]])
    covariance = np.eye(3)
    covariance[:2, :2] = rotation @ np.diag([a * a, b * b]) @ rotation.T
    assert frames.horizontal_sigma(covariance.ravel()) == pytest.approx(max(a, b))

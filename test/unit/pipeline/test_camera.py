"""Lens models: against OpenCV, there and back, and what must be refused."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gps_denied_inference.errors import InvalidParameterError, UnknownNameError
from gps_denied_inference.pipeline.camera import CameraModel

K = [458.654, 0.0, 367.215, 0.0, 457.296, 248.375, 0.0, 0.0, 1.0]
WIDTH, HEIGHT = 752, 480
LENSES = {
    "ideal": ("plumb_bob", []),
    "plumb_bob": ("plumb_bob", [-0.2834, 0.07396, 0.00019, 1.76e-05, 0.0]),
    "plumb_bob_4": ("plumb_bob", [-0.2834, 0.07396, 0.00019, 1.76e-05]),
    "rational": ("rational_polynomial", [0.5, 0.1, 1e-4, -2e-4, 0.01, 0.85, 0.2, 0.03]),
    "equidistant": ("equidistant", [-0.013, 0.0202, -0.0126, 0.0027]),
}


def camera(name):
    model, d = LENSES[name]
    return CameraModel.from_info(model, K, d, WIDTH, HEIGHT)


@pytest.mark.parametrize("name", LENSES)
@given(
    st.lists(st.tuples(st.floats(0, WIDTH - 1), st.floats(0, HEIGHT - 1)), min_size=1, max_size=20)
)
def test_every_pixel_comes_back(name, pixels):
    lens = camera(name)
    normal = lens.undistort(np.array(pixels))
    np.testing.assert_allclose(lens.project(normal), pixels, atol=1e-3)


@pytest.mark.parametrize("name", ["plumb_bob", "rational"])
def test_projects_as_opencv(name):
    normal = np.random.default_rng(0).uniform(-0.6, 0.6, (50, 2))
    expected, _ = cv2.projectPoints(
        np.column_stack([normal, np.ones(50)]),
        np.zeros(3),
        np.zeros(3),
        np.array(K).reshape(3, 3),
        np.array(LENSES[name][1]),
    )
    np.testing.assert_allclose(camera(name).project(normal), expected[:, 0], atol=1e-9)


def test_plumb_bob_is_the_formula():
    k1, k2, p1, p2 = LENSES["plumb_bob_4"][1]
    x, y = 0.31, -0.24
    r2 = x * x + y * y
    radial = 1 + k1 * r2 + k2 * r2**2
    xd = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    yd = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    expected = [[K[0] * xd + K[2], K[4] * yd + K[5]]]
    np.testing.assert_allclose(camera("plumb_bob_4").project([[x, y]]), expected, atol=1e-9)


def test_equidistant_is_the_formula():
    k1, k2, k3, k4 = LENSES["equidistant"][1]
    x, y = 0.8, -0.5
    r = np.hypot(x, y)
    t = np.arctan(r)
    scale = t * (1 + k1 * t**2 + k2 * t**4 + k3 * t**6 + k4 * t**8) / r
    expected = [[K[0] * x * scale + K[2], K[4] * y * scale + K[5]]]
    np.testing.assert_allclose(camera("equidistant").project([[x, y]]), expected, atol=1e-9)


def test_a_pixel_that_no_ray_makes_is_nan():
    wide = CameraModel.from_info(
        "equidistant", [120, 0, 320, 0, 120, 240, 0, 0, 1], [0] * 4, 640, 480
    )
    normal = wide.undistort([[0.0, 0.0], [320.0, 240.0]])
    assert np.isnan(normal[0]).all()
    np.testing.assert_allclose(normal[1], 0.0, atol=1e-12)


def test_nothing_in_nothing_out():
    for name in LENSES:
        assert camera(name).undistort(np.zeros((0, 2))).shape == (0, 2)
        assert camera(name).project(np.zeros((0, 2))).shape == (0, 2)


def test_an_unnamed_lens_without_distortion_is_ideal():
    lens = CameraModel.from_info("", K, [0.0] * 5, WIDTH, HEIGHT)
    np.testing.assert_allclose(lens.undistort([[K[2], K[5]]]), 0.0, atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"distortion_model": "fov"}, UnknownNameError, "plumb_bob"),
        ({"distortion_model": "", "d": [0.1]}, UnknownNameError, "distortion model"),
        ({"d": [0.1, 0.2]}, InvalidParameterError, "4 or 5"),
        ({"distortion_model": "rational_polynomial"}, InvalidParameterError, "length 8"),
        ({"distortion_model": "equidistant"}, InvalidParameterError, "length 4"),
        ({"k": [0.0] * 9}, InvalidParameterError, "uncalibrated"),
        ({"k": K[:8]}, InvalidParameterError, "9 values"),
        ({"k": [np.nan, *K[1:]]}, InvalidParameterError, "finite"),
        ({"d": [np.inf, 0, 0, 0, 0]}, InvalidParameterError, "finite"),
        ({"width": 0}, InvalidParameterError, "positive"),
    ],
)
def test_refused_calibrations(changes, error, text):
    info = {
        "distortion_model": "plumb_bob",
        "k": K,
        "d": [0.0] * 5,
        "width": WIDTH,
        "height": HEIGHT,
    }
    with pytest.raises(error, match=text):
        CameraModel.from_info(**{**info, **changes})

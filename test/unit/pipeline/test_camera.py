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
    "rational_5": ("rational_polynomial", [-0.2834, 0.07396, 0.00019, 1.76e-05, 0.0]),
    "thin_prism": (
        "rational_polynomial",
        [0.5, 0.1, 1e-4, -2e-4, 0.01, 0.85, 0.2, 0.03, 1e-3, -2e-4, 5e-4, 1e-4],
    ),
    "tilted": (
        "rational_polynomial",
        [0.5, 0.1, 1e-4, -2e-4, 0.01, 0.85, 0.2, 0.03, 1e-3, -2e-4, 5e-4, 1e-4, 0.02, -0.01],
    ),
    "plumb_bob_8": ("plumb_bob", [0.5, 0.1, 1e-4, -2e-4, 0.01, 0.85, 0.2, 0.03]),
    "fisheye": ("fisheye", [-0.013, 0.0202, -0.0126, 0.0027]),
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


RAYS = np.random.default_rng(0).uniform(-0.5, 0.5, (50, 2))


def by_opencv(d):
    """Pixels of RAYS through the coefficients, by cv2.projectPoints."""
    space = np.column_stack([RAYS, np.ones(len(RAYS))])
    k = np.array(K).reshape(3, 3)
    return cv2.projectPoints(space, np.zeros(3), np.zeros(3), k, np.array(d))[0][:, 0]


def by_opencv_fisheye(d):
    """Pixels of RAYS through the coefficients, by cv2.fisheye."""
    k = np.array(K).reshape(3, 3)
    return cv2.fisheye.distortPoints(RAYS[:, None], k, np.array(d))[:, 0]


@pytest.mark.parametrize(
    "name", ["plumb_bob", "rational", "rational_5", "thin_prism", "tilted", "plumb_bob_8"]
)
def test_projects_as_opencv(name):
    np.testing.assert_allclose(
        camera(name).project(RAYS), by_opencv(LENSES[name][1]), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("name", ["plumb_bob", "rational_polynomial"])
@pytest.mark.parametrize("length", [8, 12, 14, 6, 20])
def test_zeros_behind_the_coefficients_change_nothing(name, length):
    d = LENSES["plumb_bob"][1]
    lens = CameraModel.from_info(name, K, d + [0.0] * (length - len(d)), WIDTH, HEIGHT)
    np.testing.assert_allclose(lens.project(RAYS), by_opencv(d), rtol=0, atol=1e-9)


@pytest.mark.parametrize("length", [4, 5, 8, 12, 14])
@pytest.mark.parametrize("name", ["equidistant", "fisheye", "FISHEYE", "kannala_brandt", "equi"])
def test_a_fisheye_under_each_of_its_names(name, length):
    d = LENSES["equidistant"][1]
    lens = CameraModel.from_info(name, K, d + [0.0] * (length - len(d)), WIDTH, HEIGHT)
    assert lens.distortion_model == "equidistant"
    np.testing.assert_allclose(lens.project(RAYS), by_opencv_fisheye(d), rtol=0, atol=1e-9)
    np.testing.assert_allclose(lens.undistort(by_opencv_fisheye(d)), RAYS, rtol=0, atol=1e-6)


def test_a_fisheye_without_distortion_is_no_pinhole():
    lens = CameraModel.from_info("equidistant", K, [0.0] * 4, WIDTH, HEIGHT)
    np.testing.assert_allclose(
        lens.project(RAYS), by_opencv_fisheye(np.zeros(4)), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize(
    ("name", "standing_for"),
    [
        ("radtan", "plumb_bob"),
        ("Brown-Conrady", "plumb_bob"),
        ("Plumb Bob", "plumb_bob"),
        ("rational", "rational_polynomial"),
    ],
)
def test_other_names_of_the_same_formula(name, standing_for):
    d = LENSES["plumb_bob"][1]
    lens = CameraModel.from_info(name, K, d, WIDTH, HEIGHT)
    assert lens.distortion_model == standing_for
    np.testing.assert_allclose(lens.project(RAYS), by_opencv(d), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["plumb_bob", "tilted", "fisheye"])
@pytest.mark.parametrize(
    ("binning", "roi", "size"),
    [
        ((0, 0), (0, 0, 0, 0), (752, 480)),
        ((1, 1), (0, 0, 752, 480), (752, 480)),
        ((2, 2), (0, 0, 0, 0), (376, 240)),
        ((2, 0), (0, 0, 0, 0), (376, 480)),
        ((0, 0), (96, 40, 500, 400), (500, 400)),
        ((4, 2), (96, 40, 500, 400), (125, 200)),
        ((2, 2), (96, 40, 501, 401), (250, 200)),
    ],
)
def test_the_image_is_cut_first_and_binned_then(name, binning, roi, size):
    """K and ROI are of the full sensor, and the image holds a part of it, binned."""
    model, d = LENSES[name]
    lens = CameraModel.from_info(model, K, d, WIDTH, HEIGHT, binning=binning, roi=roi)
    full = by_opencv_fisheye(d) if name == "fisheye" else by_opencv(d)
    expected = (full - roi[:2]) / np.maximum(binning, 1)
    assert (lens.width, lens.height) == size
    np.testing.assert_allclose(lens.project(RAYS), expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(lens.undistort(expected), RAYS, rtol=0, atol=1e-6)


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
        ({"distortion_model": "inverse_brown_conrady"}, UnknownNameError, "plumb_bob"),
        ({"d": [0.1, 0.2]}, InvalidParameterError, "length 0, 4, 5, 8, 12 or 14"),
        ({"d": [0.1] * 15}, InvalidParameterError, "length 0, 4, 5, 8, 12 or 14"),
        ({"distortion_model": "fisheye", "d": [0.1] * 5}, InvalidParameterError, "length 4"),
        ({"distortion_model": "equidistant", "d": []}, InvalidParameterError, "length 4"),
        ({"roi": (700, 0, 100, 100)}, InvalidParameterError, "inside"),
        ({"roi": (0, 400, 100, 81)}, InvalidParameterError, "inside"),
        ({"roi": (10, 0, 0, 0)}, InvalidParameterError, "inside"),
        ({"binning": (800, 1)}, InvalidParameterError, "binning"),
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

"""The view from above: a flat ground painted, photographed by a leaning camera, brought back."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gps_denied_inference.pipeline.camera import CameraModel
from gps_denied_inference.pipeline.features import Features
from gps_denied_inference.pipeline.localization.pose import Pose
from gps_denied_inference.pipeline.localization.view import frame_from_view, view_from_above

GROUND_GSD, HEIGHT = 0.25, 100.0
K = [400.0, 0.0, 319.5, 0.0, 400.0, 239.5, 0.0, 0.0, 1.0]
DISTORTED = [-0.25, 0.07, 0.001, -0.0005, 0.0]
small = st.floats(-0.2, 0.2)


def lens(distortion=()):
    return CameraModel.from_info("plumb_bob", K, list(distortion), 640, 480)


def ground():
    """A smooth pattern, px (x, y) at east (x - 500) GROUND_GSD, north (500 - y) GROUND_GSD."""
    noise = np.random.default_rng(3).uniform(0, 255, (1001, 1001)).astype(np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), 6.0)
    return cv2.normalize(soft, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def photograph(camera, pose):
    x, y = np.meshgrid(np.arange(640.0), np.arange(480.0))
    rays = camera.undistort(np.column_stack([x.ravel(), y.ravel()]))
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, 5), np.linspace(-1, 1, 5)), -1).reshape(-1, 2)
    spots = grid[:, 0] * 40.0 + 1j * grid[:, 1] * 40.0
    matrix, _ = cv2.findHomography(pose.project(spots), np.column_stack([spots.real, spots.imag]))
    at = cv2.perspectiveTransform(rays[:, None], matrix)[:, 0]
    map_x = (at[:, 0] / GROUND_GSD + 500.0).reshape(480, 640).astype(np.float32)
    map_y = (500.0 - at[:, 1] / GROUND_GSD).reshape(480, 640).astype(np.float32)
    return cv2.remap(ground(), map_x, map_y, cv2.INTER_LINEAR)


@pytest.mark.parametrize("distortion", [(), DISTORTED])
@pytest.mark.parametrize("heading", [0.0, 77.0, 200.0])
def test_it_looks_as_the_ground_does(distortion, heading):
    gravity = np.array([0.12, -0.08, 1.0])
    gravity /= np.linalg.norm(gravity)
    camera, pose = lens(distortion), Pose(np.array([4.0, -9.0, HEIGHT]), math.radians(heading),
                                          gravity, 1.0)  # fmt: skip
    view = view_from_above(
        photograph(camera, pose), camera, HEIGHT, pose.heading, gravity, 0.5, (256, 256)
    )
    rows, columns = np.mgrid[0:256, 0:256]
    east = pose.axis.real + (columns - view.axis[0]) * view.gsd
    north = pose.axis.imag - (rows - view.axis[1]) * view.gsd
    expected = cv2.remap(
        ground(), (east / GROUND_GSD + 500.0).astype(np.float32),
        (500.0 - north / GROUND_GSD).astype(np.float32), cv2.INTER_LINEAR,
    )  # fmt: skip
    inside = view.inside > 0
    assert inside.mean() > 0.3
    assert np.abs(view.image[inside].astype(int) - expected[inside]).mean() < 4.0


@settings(max_examples=30)
@given(lean_x=small, lean_y=small, heading=st.floats(-3.0, 3.0), x=st.floats(0, 255),
       y=st.floats(0, 255))  # fmt: skip
def test_its_pixels_are_the_rays_that_the_pose_projects(lean_x, lean_y, heading, x, y):
    gravity = np.array([lean_x, lean_y, 1.0])
    gravity /= np.linalg.norm(gravity)
    pose = Pose(np.array([0.0, 0.0, HEIGHT]), heading, gravity, 1.0)
    frame = np.zeros((480, 640), np.uint8)
    view = view_from_above(frame, lens(), HEIGHT, heading, gravity, 0.4, (256, 256))
    at = pose.axis + (x - view.axis[0]) * 0.4 - 1j * (y - view.axis[1]) * 0.4
    assert view.rays(np.array([[x, y]])) == pytest.approx(pose.project(np.array([at])), abs=1e-9)


class Corners:
    """Names every pixel of a grid a keypoint, wherever it lies."""

    def extract(self, image):
        points = np.stack(np.meshgrid(np.arange(0, 256, 8), np.arange(0, 256, 8)), -1)
        points = points.reshape(-1, 2).astype(np.float32)
        ones = np.ones(len(points), np.float32)
        return Features(points, ones, np.ones((len(points), 4), np.float32), 256, 256, "m", "aa")


def test_keypoints_of_the_frames_own_edge_are_left_out():
    gravity = np.array([0.0, 0.0, 1.0])
    frame = np.full((480, 640), 90, np.uint8)
    view = view_from_above(frame, lens(), HEIGHT, 0.5, gravity, 1.0, (256, 256))
    features = view.extract(Corners(), 300, lambda rays: rays[:, 0] < 0.25)
    assert (features.width, features.height) == (300, 300)
    assert 0 < features.count < 32 * 32
    rays = view.rays(features.keypoints)
    assert rays[:, 0].max() < 0.25
    pixels = lens().project(rays)
    assert (pixels[:, 0] > 5.0 * 4.0).all()
    assert (pixels[:, 0] < 639.0 - 5.0 * 4.0).all()
    assert (pixels[:, 1] > 5.0 * 4.0).all()
    assert (pixels[:, 1] < 479.0 - 5.0 * 4.0).all()


def test_a_frame_that_fills_the_view_has_no_edge():
    gravity = np.array([0.0, 0.0, 1.0])
    frame = np.full((480, 640), 90, np.uint8)
    view = view_from_above(frame, lens(), HEIGHT, 0.0, gravity, 0.1, (256, 256))
    assert (view.inside > 0).all()


@pytest.mark.parametrize("distortion", [(), DISTORTED])
@pytest.mark.parametrize("tilt", [0.0, 30.0, 50.0])
def test_what_is_interpolated_is_where_the_lens_has_it(distortion, tilt):
    camera = lens(distortion)
    gravity = np.array([0.3, math.sin(math.radians(tilt)), math.cos(math.radians(tilt))])
    gravity /= np.linalg.norm(gravity)
    size = (320, 256)
    blank = np.zeros((480, 640), np.uint8)
    view = view_from_above(blank, camera, HEIGHT, 0.7, gravity, 0.4, size)
    map_x, map_y = frame_from_view(view.rays_from_view, camera, (1.0, 1.0), size)
    at = np.argwhere(view.inside > 0)[:, ::-1]
    assert len(at) > 5000
    found = np.column_stack([map_x[at[:, 1], at[:, 0]], map_y[at[:, 1], at[:, 0]]])
    assert np.abs(found - camera.project(view.rays(at))).max() < 0.05

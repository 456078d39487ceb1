"""Pose over flat ground: found exactly, its covariance honest, never zero."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gps_denied_inference.pipeline.localization.pose import Known, Pose, estimate

GSD, HEIGHT = 0.5, 150.0
NADIR = np.array([0.0, 0.0, 1.0])


def scene(count, seed):
    random = np.random.default_rng(seed)
    return random.uniform(-60, 60, count) + 1j * random.uniform(-60, 60, count)


def seen(pose, ground, noise_px, seed):
    noise = np.random.default_rng(seed).normal(0.0, noise_px * GSD / HEIGHT, (len(ground), 2))
    return pose.project(ground) + noise


def leaning(x, y):
    gravity = np.array([x, y, 1.0])
    return gravity / np.linalg.norm(gravity)


@settings(max_examples=30)
@given(heading=st.floats(-3.0, 3.0), height=st.floats(120.0, 180.0),
       x=st.floats(-0.1, 0.1), y=st.floats(-0.1, 0.1), seed=st.integers(0, 10**6))  # fmt: skip
def test_exact_pairs_give_the_exact_pose(heading, height, x, y, seed):
    gravity = leaning(x, y)
    truth = Pose(np.array([7.0, -3.0, height]), heading, gravity, 1.0)
    ground = scene(60, seed)
    start = Pose(np.array([9.0, 1.0, 150.0]), heading + 0.05, gravity, 1.0)
    known = Known(HEIGHT, 0.5, gravity, 0.01, 0.001, GSD)
    found = estimate(truth.project(ground), ground, start, known, GSD, 30.0)
    assert found is not None
    assert abs(found.pose.axis - truth.axis) < 0.05
    assert found.pose.camera == pytest.approx(truth.camera, abs=0.5)
    assert math.remainder(found.pose.heading - heading, 2 * math.pi) == pytest.approx(0, abs=1e-3)


@settings(max_examples=30)
@given(count=st.integers(4, 80), noise=st.floats(0.0, 1.5), seed=st.integers(0, 10**6))
def test_a_covariance_is_symmetric_positive_and_never_zero(count, noise, seed):
    truth = Pose(np.array([0.0, 0.0, HEIGHT]), 0.4, NADIR, 1.0)
    ground = scene(count, seed)
    found = estimate(
        seen(truth, ground, noise, seed), ground, truth, Known(HEIGHT, 0.1, NADIR, 0.05, 0.1, GSD),
        GSD, 3.0,
    )  # fmt: skip
    if found is None:
        return
    for covariance in (found.axis_covariance, found.camera_covariance):
        assert np.isfinite(covariance).all()
        assert covariance == pytest.approx(covariance.T)
        assert np.linalg.eigvalsh(covariance)[0] > 0.0
    assert np.linalg.eigvalsh(found.axis_covariance)[0] >= GSD**2 * 0.99


def test_the_truth_lies_inside_two_sigmas_as_often_as_it_should():
    inside, camera_inside, rounds = 0, 0, 150
    random = np.random.default_rng(0)
    for seed in range(rounds):
        gravity = leaning(*random.normal(0.0, 0.02, 2))
        truth = Pose(np.array([0.0, 0.0, HEIGHT]), random.uniform(-3, 3), gravity, 1.0)
        ground = scene(50, seed)
        rays = seen(truth, ground, 1.0, seed)
        # The map is off by one sigma in each direction, and the attitude is measured to 0.02 rad.
        mapped = ground + complex(*random.normal(0.0, GSD, 2))
        measured = leaning(*(gravity[:2] + random.normal(0.0, 0.02, 2)))
        start = Pose(truth.camera, truth.heading, measured, 1.0)
        known = Known(HEIGHT, 0.1, measured, 0.02, 0.005, GSD)
        found = estimate(rays, mapped, start, known, GSD, 4.0)
        assert found is not None
        off = found.pose.axis - truth.axis
        vector = np.array([off.real, off.imag])
        inside += vector @ np.linalg.solve(found.axis_covariance, vector) < 6.18
        lost = found.pose.camera - truth.camera
        camera_inside += lost @ np.linalg.solve(found.camera_covariance, lost) < 8.02
    assert 0.88 <= inside / rounds <= 0.995
    assert 0.88 <= camera_inside / rounds <= 0.995


def test_relief_that_bends_half_the_frame_widens_the_covariance():
    truth = Pose(np.array([0.0, 0.0, HEIGHT]), 0.0, NADIR, 1.0)
    ground = scene(200, 1)
    known = Known(HEIGHT, 0.1, NADIR, 0.01, 0.005, GSD)
    rays = seen(truth, ground, 0.5, 1)
    flat = estimate(rays, ground, truth, known, GSD, 6.0)
    bent = estimate(rays, ground + np.where(ground.real > 0, 2.0, 0.0), truth, known, GSD, 6.0)
    assert flat is not None
    assert bent is not None
    # The map's own share is the same for both.
    spread = [np.trace(e.axis_covariance) - 2.0 * GSD**2 for e in (flat, bent)]
    assert spread[1] > 4.0 * spread[0]


def test_pairs_that_fit_no_pose_give_none():
    truth = Pose(np.array([0.0, 0.0, HEIGHT]), 0.0, NADIR, 1.0)
    ground = scene(30, 1)
    known = Known(HEIGHT, 0.01, NADIR, 0.01, 0.005, GSD)
    assert estimate(scene(30, 2).view(float).reshape(-1, 2), ground, truth, known, GSD, 2.0) is None


def test_reach_is_height_over_focal_length_looking_down():
    assert Pose(np.array([0.0, 0.0, 90.0]), 0.0, NADIR, 1.2).reach == pytest.approx(75.0)

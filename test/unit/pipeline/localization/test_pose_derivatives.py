"""The pose's derivatives are those of its own functions, by central differences."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from gps_denied_inference.pipeline.localization.pose import Estimate, Known, Pose

Array = npt.NDArray[np.float64]


def differences(of: Callable[[Array], Array]) -> Array:
    """Return the Jacobian (M, 9) at zero."""
    columns = []
    for index, width in enumerate([1e-3, 1e-3, *[1e-6] * 7]):
        step = np.zeros(9)
        step[index] = width
        columns.append((of(step) - of(-step)).ravel() / (2.0 * width))
    return np.stack(columns, axis=1)


def some_pose(seed: int) -> Pose:
    """Return a pose tilted by up to 40 degrees over sloping ground."""
    random = np.random.default_rng(seed)
    tilt = math.radians(random.uniform(0.0, 40.0))
    towards = random.uniform(0.0, 2.0 * math.pi)
    gravity = np.array([
        math.sin(tilt) * math.cos(towards), math.sin(tilt) * math.sin(towards), math.cos(tilt),
    ])  # fmt: skip
    camera = np.array([*random.uniform(-900.0, 900.0, 2), random.uniform(30.0, 400.0)])
    return Pose(
        camera, random.uniform(-4.0, 4.0), gravity, random.uniform(0.9, 1.1),
        random.normal(0.0, 0.03, 2),
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_projection(seed: int) -> None:
    pose = some_pose(seed)
    random = np.random.default_rng(seed + 100)
    spread = 0.6 * pose.camera[2]
    ground = pose.axis + random.normal(0, spread, 60) + 1j * random.normal(0, spread, 60)
    at, slopes = pose.project_with_slopes(ground)
    np.testing.assert_allclose(at, pose.project(ground), atol=1e-12)
    front = np.isfinite(at).all(axis=1)
    assert front.sum() > 20
    wanted = differences(lambda step: pose.moved(step).project(ground[front]))
    scale = np.abs(wanted).max(axis=0)
    np.testing.assert_allclose(slopes[front].reshape(-1, 9) / scale, wanted / scale, atol=2e-6)


def test_points_behind_the_camera_have_no_say() -> None:
    """A camera tilted by 40 degrees: what lies 20 heights behind it is not before the lens."""
    gravity = np.array([0.0, math.sin(0.7), math.cos(0.7)])
    pose = Pose(np.array([0.0, 0.0, 50.0]), 0.0, gravity, 1.0)
    behind = (pose.axis - complex(*pose.camera[:2])) * -20.0
    at, slopes = pose.project_with_slopes(np.array([pose.axis, behind]))
    assert np.isfinite(at[0]).all()
    assert np.isnan(at[1]).all()
    assert np.any(slopes[0])
    assert not np.any(slopes[1])


@pytest.mark.parametrize("seed", range(12))
def test_covariances_and_prior(seed: int) -> None:
    pose = some_pose(seed)
    random = np.random.default_rng(seed + 200)
    root = random.normal(0.0, 0.01, (9, 9))
    covariance = root @ root.T
    found = Estimate(pose, covariance, 1.0, 0.0)
    axis = differences(
        lambda step: np.array([pose.moved(step).axis.real, pose.moved(step).axis.imag])
    )
    np.testing.assert_allclose(found.axis_covariance, axis @ covariance @ axis.T, rtol=1e-5)
    camera = differences(lambda step: pose.moved(step).camera)
    np.testing.assert_allclose(
        found.camera_covariance, camera @ covariance @ camera.T, rtol=1e-5, atol=1e-12
    )
    reach = differences(lambda step: np.array([math.log(pose.moved(step).reach)]))
    wanted = math.sqrt(float((reach @ covariance @ reach.T)[0, 0]))
    assert found.reach_sigma == pytest.approx(wanted, rel=1e-5)
    known = Known(100.0, 0.1, some_pose(seed + 1).gravity, 0.02, 0.005, 0.3)
    np.testing.assert_allclose(
        known.slopes(pose),
        differences(lambda step: known.residuals(pose.moved(step))),
        atol=1e-5,
        rtol=1e-5,
    )

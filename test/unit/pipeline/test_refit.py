"""Models improved from a rough start."""

from __future__ import annotations

import numpy as np
import pytest

from gps_denied_inference.pipeline.refit import refit
from gps_denied_inference.pipeline.residuals import project, residuals_of

PLANE = np.array([[1.02, -0.05, 9.0], [0.04, 0.99, -6.0], [2e-5, -1e-5, 1.0]])


def pairs(model, count=400, noise=0.1):
    """Return points of two frames and the true model between them."""
    rng = np.random.default_rng(2)
    query = rng.uniform((0, 0), (640, 480), (count, 2))
    if model == "homography":
        reference, truth = project(PLANE, query), PLANE
    else:
        # A camera that moves sideways and forwards past points at many depths.
        camera = np.array([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]])
        depth = rng.uniform(5.0, 50.0, count)
        rays = np.column_stack([query, np.ones(count)]) @ np.linalg.inv(camera).T
        x, y, z = move = np.array([0.4, 0.1, -0.5])
        seen = (rays * depth[:, None] + move) @ camera.T
        reference = seen[:, :2] / seen[:, 2:]
        across = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        truth = np.linalg.inv(camera).T @ across @ np.linalg.inv(camera)
    return query, reference + rng.normal(0, noise, reference.shape), truth


@pytest.mark.parametrize("model", ["homography", "fundamental"])
def test_a_rough_model_is_improved(model):
    query, reference, truth = pairs(model)
    bend = np.array([[1.0, 2e-3, 0.6], [-1e-3, 1.0, 0.4], [0, 0, 1.0]])
    start = truth @ bend if model == "fundamental" else bend @ truth
    before = residuals_of(start, model, query, reference)
    found = refit(start, model, query, reference, 3.0)
    after = residuals_of(found, model, query, reference)
    best = residuals_of(truth, model, query, reference)
    assert np.sqrt(np.mean(before**2)) > 4.0 * np.sqrt(np.mean(best**2))
    assert np.sqrt(np.mean(after**2)) < 1.1 * np.sqrt(np.mean(best**2))


@pytest.mark.parametrize(("model", "wrong"), [("homography", 0.3), ("fundamental", 0.1)])
def test_a_start_that_too_few_agree_with_is_not_improved(model, wrong):
    query, reference, truth = pairs(model)
    assert refit(truth, model, query, reference, 3.0) is not None
    off = int(wrong * len(query))
    reference[:off] += (25.0, -40.0)
    assert refit(truth, model, query, reference, 3.0) is None

"""A known model made to fit pairs that mostly agree with it already, by weighted least squares.

Where nearly all pairs are right and the motion is roughly known, nothing need be searched: a few
steps of least squares, each weighting the pairs by how well they agreed with the step before, end
at the best model near the start.
"""

from __future__ import annotations

import numpy as np

from gps_denied_inference.pipeline.residuals import Points, agreeing

AGREEING = {"homography": 0.8, "fundamental": 0.95}
"""Share of the pairs that must agree in the end; with fewer, a better model may lie elsewhere. Any
epipole fits the ground, so that those who disagree with a fundamental matrix count for more."""

STEPS = {"homography": 1, "fundamental": 2}
ENOUGH = 300
"""Pairs that take part; of more, every n-th does."""


def refit(
    start: Points, model: str, query: Points, reference: Points, threshold: float
) -> Points | None:
    """Improve a model.

    Args:
        start: (3, 3) float64, as :func:`residuals.agreeing` takes it.
        model: ``"homography"`` or ``"fundamental"``.
        query, reference: (N, 2) float64 px, finite, not on one line.
        threshold: px, greatest residual of an inlier.

    Returns:
        (3, 3), to scale; None where too few pairs agree.
    """
    some = slice(None, None, -(-len(query) // ENOUGH))
    here, there, matrix = query[some], reference[some], start
    for _ in range(STEPS[model]):
        residuals, agree = agreeing(matrix, model, here, there, threshold)
        if np.count_nonzero(agree) < AGREEING[model] * len(here):
            return None
        matrix = step(matrix, model, here[agree], there[agree], residuals[agree] / threshold)
    _, agree = agreeing(matrix, model, query, reference, threshold)
    return matrix if np.count_nonzero(agree) >= AGREEING[model] * len(query) else None


def step(matrix: Points, model: str, query: Points, reference: Points, residuals: Points) -> Points:
    """Return the model (3, 3), to scale, after one step of least squares.

    Args:
        query, reference: (N, 2) px, pairs that agree with ``matrix``.
        residuals: (N,) theirs, in thresholds: 0..1.
    """
    into_query, into_reference = _normalising(query), _normalising(reference)
    if model == "homography":
        solve, back = _homography, np.linalg.inv(into_reference)
        onto = into_reference
    else:
        solve, back = _fundamental, into_reference.T
        onto = np.linalg.inv(back)
    normal = onto @ matrix @ np.linalg.inv(into_query)
    here, there = _moved(into_query, query), _moved(into_reference, reference)
    weights = np.square(1.0 - np.square(residuals))
    return np.asarray(back @ solve(normal, here, there, weights) @ into_query, np.float64)


def _homography(matrix: Points, query: Points, reference: Points, weights: Points) -> Points:
    """Solve the linear equations of points (N, 3), each divided by its depth as it was."""
    weights = weights / np.square(query @ matrix[2])
    u, v = reference[:, 0], reference[:, 1]
    one, by_u, by_v, by_both = (
        query.T @ (w[:, None] * query)
        for w in (weights, weights * u, weights * v, weights * (u * u + v * v))
    )
    normal = np.zeros((3, 3, 3, 3))
    normal[0, :, 0], normal[1, :, 1], normal[2, :, 2] = one, one, by_both
    normal[0, :, 2], normal[2, :, 0] = -by_u, -by_u
    normal[1, :, 2], normal[2, :, 1] = -by_v, -by_v
    found = _least(normal.reshape(9, 9))
    return np.asarray(found / found[2, 2], np.float64)


def _fundamental(matrix: Points, query: Points, reference: Points, weights: Points) -> Points:
    """Solve the epipolar equations of points (N, 3), each divided by its gradient as it was."""
    lines = query @ matrix.T[:, :2], reference @ matrix[:, :2]
    gradient = sum(np.einsum("ij,ij->i", line, line) for line in lines)
    rows = (reference[:, :, None] * query[:, None, :]).reshape(-1, 9)
    found = _least(rows.T @ ((weights / gradient)[:, None] * rows))
    left, singular, right = np.linalg.svd(found)
    return np.asarray((left[:, :2] * singular[:2]) @ right[:2], np.float64)


def _least(normal: Points) -> Points:
    """Return the unit vector of least norm under (9, 9) normal equations, as (3, 3)."""
    return np.asarray(np.linalg.eigh(normal)[1][:, 0].reshape(3, 3), np.float64)


def _normalising(points: Points) -> Points:
    """Return (3, 3), from px to about -1..1 around the points' mean."""
    mean = np.ones(len(points)) @ points / len(points)
    scale = 1.0 / max(float(np.abs(points - mean).mean()), 1e-9)
    return np.array([[scale, 0, -scale * mean[0]], [0, scale, -scale * mean[1]], [0, 0, 1.0]])


def _moved(into: Points, points: Points) -> Points:
    """Return points (N, 2) normalised, as (x, y, 1)."""
    return np.column_stack([points * into[0, 0] + into[:2, 2], np.ones(len(points))])

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
        found = step(matrix, model, here[agree], there[agree], residuals[agree] / threshold)
        if found is None:
            return None
        matrix = found
    _, agree = agreeing(matrix, model, query, reference, threshold)
    return matrix if np.count_nonzero(agree) >= AGREEING[model] * len(query) else None


def step(
    matrix: Points, model: str, query: Points, reference: Points, residuals: Points
) -> Points | None:
    """Return the model (3, 3), to scale, after one step of least squares; None = singular.

    Args:
        query, reference: (N, 2) px, pairs that agree with ``matrix``.
        residuals: (N,) theirs, in thresholds: 0..1.
    """
    # One frame for both: they lie in images of about one size, and only rounding depends on it.
    (x, y), scale = _centre(query)
    into = np.array([[scale, 0.0, -scale * x], [0.0, scale, -scale * y], [0.0, 0.0, 1.0]])
    back = np.array([[1.0 / scale, 0.0, x], [0.0, 1.0 / scale, y], [0.0, 0.0, 1.0]])
    homography = model == "homography"
    onto = into if homography else back.T
    here, there = np.ones((len(query), 3)), (reference - (x, y)) * scale
    np.multiply(query - (x, y), scale, out=here[:, :2])
    weights = np.square(1.0 - np.square(residuals))
    solve = _homography if homography else _fundamental
    found = solve(onto @ matrix @ back, here, there, weights)
    if found is None:
        return None
    return np.asarray((back if homography else into.T) @ found @ into, np.float64)


def _homography(matrix: Points, query: Points, reference: Points, weights: Points) -> Points | None:
    """Solve the linear equations of points (N, 3), each divided by its depth as it was."""
    depth = query @ (matrix[2] / matrix[2, 2])
    terms = np.empty((len(query), 9))
    terms[:, :3] = query
    np.multiply(query, reference[:, :1], out=terms[:, 3:6])
    np.multiply(query, reference[:, 1:], out=terms[:, 6:])
    sums = terms.T @ ((weights / np.square(depth))[:, None] * terms)
    normal = np.zeros((9, 9))
    normal[:3, :3] = normal[3:6, 3:6] = sums[:3, :3]
    normal[6:, 6:] = sums[3:6, 3:6] + sums[6:, 6:]
    normal[:3, 6:], normal[3:6, 6:] = -sums[:3, 3:6], -sums[:3, 6:]
    normal[6:, :3], normal[6:, 3:6] = -sums[3:6, :3], -sums[6:, :3]
    try:
        # The centre of the points has the depth 1.
        found = np.linalg.solve(normal[:8, :8], -normal[:8, 8])
    except np.linalg.LinAlgError:
        return None
    return np.append(found, 1.0).reshape(3, 3)


def _fundamental(matrix: Points, query: Points, reference: Points, weights: Points) -> Points:
    """Solve the epipolar equations of points (N, 3), each divided by its gradient as it was."""
    reference = np.column_stack([reference, np.ones(len(reference))])
    lines = query @ matrix.T[:, :2], reference @ matrix[:, :2]
    gradient = sum(np.einsum("ij,ij->i", line, line) for line in lines)
    rows = (reference[:, :, None] * query[:, None, :]).reshape(-1, 9)
    found = _least(rows.T @ ((weights / gradient)[:, None] * rows))
    left, singular, right = np.linalg.svd(found)
    return np.asarray((left[:, :2] * singular[:2]) @ right[:2], np.float64)


def _least(normal: Points) -> Points:
    """Return the unit vector of least norm under (9, 9) normal equations, as (3, 3)."""
    return np.asarray(np.linalg.eigh(normal)[1][:, 0].reshape(3, 3), np.float64)


def _centre(points: Points) -> tuple[tuple[float, float], float]:
    """Return the mean of points (N, 2) px, and what brings them to about -1..1 around it."""
    x, y = (np.ones(len(points)) @ points / len(points)).tolist()
    return (x, y), 1.0 / max(float(np.abs(points - (x, y)).mean()), 1e-9)

"""How far pairs of points lie from a geometric model."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def project(homography: Points, points: npt.NDArray[np.floating]) -> Points:
    """Apply a homography (3, 3) to points (N, 2) in px."""
    x, y = points[:, 0], points[:, 1]
    depth = homography[2, 0] * x + homography[2, 1] * y + homography[2, 2]
    projected = np.empty((len(points), 2))
    for axis, (a, b, c) in enumerate(homography[:2]):
        np.divide(a * x + b * y + c, depth, out=projected[:, axis])
    return projected


def residuals_of(matrix: Points, model: str, query: Points, reference: Points) -> Points:
    """Return each pair's residual in px, (M,); see :func:`agreeing`."""
    if model != "fundamental":
        return lengths(project(matrix, query) - reference)
    (a, b, c), (d, e, f), (g, h, i) = matrix
    (x, y), (u, v) = query.T, reference.T
    line_u, line_v = a * x + b * y + c, d * x + e * y + f
    line_x, line_y = a * u + d * v + g, b * u + e * v + h
    algebraic = line_u * u + line_v * v + (g * x + h * y + i)
    gradient = line_u * line_u + line_v * line_v + line_x * line_x + line_y * line_y
    return np.asarray(np.abs(algebraic) / np.sqrt(gradient), np.float64)


def lengths(vectors: npt.NDArray[np.floating]) -> Points:
    """Return the lengths of vectors (N, 2), (N,)."""
    return np.asarray(np.hypot(vectors[:, 0], vectors[:, 1]), np.float64)


def agreeing(
    matrix: Points, model: str, query: Points, reference: Points, threshold: float
) -> tuple[Points, Mask]:
    """Tell which pairs agree with a model.

    Args:
        matrix: (3, 3), reference ~ matrix @ query, or for ``"fundamental"``
            reference^T @ matrix @ query = 0; points as (x, y, 1) in px.
        model: ``"fundamental"``, or any other name for what maps points to points.
        query, reference: (N, 2) px.
        threshold: px.

    Returns:
        (N,) px, the distance in the reference image or, for ``"fundamental"``, the Sampson
        distance; and (N,) bool, those below the threshold, on the camera's side of the horizon.
    """
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        residuals = residuals_of(matrix, model, query, reference)
        agree = residuals < threshold
        if model != "fundamental":
            agree &= query @ matrix[2, :2] + matrix[2, 2] > 0.0
    return residuals, agree

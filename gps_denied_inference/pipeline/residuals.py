"""How far pairs of points lie from a geometric model."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def project(homography: Points, points: npt.NDArray[np.floating]) -> Points:
    """Apply a homography (3, 3) to points (N, 2) in px."""
    mapped = points @ homography[:, :2].T + homography[:, 2]
    projected: Points = mapped[:, :2] / mapped[:, 2:]
    return projected


def residuals_of(matrix: Points, model: str, query: Points, reference: Points) -> Points:
    """Return each pair's residual in px, (M,); see :func:`agreeing`."""
    if model != "fundamental":
        distance: Points = np.linalg.norm(project(matrix, query) - reference, axis=1)
        return distance
    line_reference = query @ matrix[:, :2].T + matrix[:, 2]
    line_query = reference @ matrix[:2, :] + matrix[2, :]
    algebraic = np.sum(line_reference[:, :2] * reference, axis=1) + line_reference[:, 2]
    gradient = np.sum(line_reference[:, :2] ** 2, axis=1) + np.sum(line_query[:, :2] ** 2, axis=1)
    sampson: Points = np.abs(algebraic) / np.sqrt(gradient)
    return sampson


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

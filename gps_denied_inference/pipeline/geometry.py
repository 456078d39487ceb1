"""Which matches agree with one motion of the camera: MAGSAC++ from OpenCV.

The search is OpenCV's; whether its answer counts is decided here. It draws its samples from all
pairs alike, and where that finds nothing that counts, once more from the best scored pairs first
(PROSAC): of six hundred pairs with forty right ones, a random four are right once in 60 000 draws,
but right pairs are mostly among the most alike. Where a model is expected that nearly all pairs
agree with, it is improved instead (:mod:`refit`). A model is refused, and None returned, where the
pairs are too few or degenerate (one point, one line), where the model itself cannot be a camera's
(mirrored, singular, points behind the camera), or where chance would give as good a one too often
(:mod:`acceptance`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from gps_denied_inference.errors import UnknownNameError
from gps_denied_inference.pipeline import acceptance
from gps_denied_inference.pipeline.matcher import Matches
from gps_denied_inference.pipeline.refit import refit
from gps_denied_inference.pipeline.residuals import agreeing
from gps_denied_inference.pipeline.residuals import project as project
from gps_denied_inference.pipeline.residuals import residuals_of as residuals_of

ModelName = Literal["homography", "fundamental"]
Points = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

CONFIDENCE = 0.999
MAX_ITERATIONS = {"homography": 10_000, "fundamental": 5_000}
"""Enough for one right pair in five, and one in three. Better sets stop the search long before."""


@dataclass(frozen=True, eq=False)
class GeometricModel:
    """A geometric model and the pairs that agree with it.

    Attributes:
        type: ``"homography"``: reference ~ matrix @ query; or ``"fundamental"``:
            reference^T @ matrix @ query = 0; points as (x, y, 1) in px.
        matrix: (3, 3) float64; a homography has matrix[2, 2] = 1, a fundamental matrix unit
            Frobenius norm.
        inliers: (M,) bool, residual below the threshold.
        rms: px, root mean square residual of the inliers: distance in the reference image for a
            homography, Sampson distance for a fundamental matrix.
        confidence: -log10 of how many models as good as this one such pairs of images give by
            chance, :data:`acceptance.MIN_CONFIDENCE` or more; NaN = not measured.
    """

    type: ModelName
    matrix: Points
    inliers: Mask
    rms: float
    confidence: float = float("nan")

    @property
    def inlier_count(self) -> int:
        """Number of pairs that agree."""
        return int(np.count_nonzero(self.inliers))


def verify(
    matches: Matches,
    model: ModelName = "homography",
    threshold: float = 3.0,
    seed: int = 0,
    start: Points | None = None,
    effort: int | None = None,
) -> GeometricModel | None:
    """Find the model that most pairs agree with; the same input gives the same answer.

    Args:
        model: ``"homography"`` (flat ground, or a camera that only turns) or ``"fundamental"``
            (a scene with depth).
        threshold: px, greatest residual of an inlier.
        seed: of the random sampling.
        start: (3, 3) float64, about what to expect; where nearly all pairs agree with it, it is
            improved instead of searching.
        effort: most samples that either search draws; None = :data:`MAX_ITERATIONS`.

    Returns:
        The model, or None where there is none (see the module).

    Raises:
        UnknownNameError: no such model.
    """
    evidence = _evidence(matches, model)
    if evidence is None:
        return None
    pairs = np.flatnonzero(_finite(evidence.query, evidence.reference))
    query, reference = evidence.query[pairs], evidence.reference[pairs]
    if start is not None:
        found = _judge(evidence, refit(start, model, query, reference, threshold), model, threshold)
        if found is not None:
            return found
    best_first = np.argsort(-matches.scores[pairs], kind="stable")
    for order, sampler in (
        (slice(None), cv2.SAMPLING_UNIFORM),
        (best_first, cv2.SAMPLING_PROSAC),
    ):
        matrix = _search(query[order], reference[order], model, threshold, seed, sampler, effort)
        found = _judge(evidence, matrix, model, threshold)
        if found is not None:
            return found
    return None


def improved(
    query: Points, reference: Points, model: ModelName, threshold: float, start: Points
) -> GeometricModel | None:
    """Improve a model that nearly all pairs agree with; nothing is searched.

    How likely chance gives such a one is not asked: ``confidence`` is NaN.

    Args:
        query, reference: (N, 2) float64 px, finite.
        model, threshold, start: as of :func:`verify`.

    Returns:
        The model; None where too few pairs agree with it, or on one line, or it cannot be a
        camera's.
    """
    if len(query) < acceptance.SAMPLES[model] + acceptance.MIN_AGREEING:
        return None
    matrix = _possible(refit(start, model, query, reference, threshold), model)
    if matrix is None:
        return None
    residuals, inliers = agreeing(matrix, model, query, reference, threshold)
    if _on_a_line(query[inliers]) or _on_a_line(reference[inliers]):
        return None
    rms = float(np.sqrt(np.mean(residuals[inliers] ** 2)))
    return GeometricModel(model, matrix, inliers, rms)


def judged(matches: Matches, found: GeometricModel, threshold: float) -> GeometricModel | None:
    """Return a model of all matches with its confidence; None where chance gives it too often."""
    evidence = _evidence(matches, found.type)
    if evidence is None:
        return None
    return _judge(evidence, found.matrix, found.type, threshold)


def _evidence(matches: Matches, model: str) -> acceptance.Evidence | None:
    """Return the pairs with what is known of them; None where they are too few, or on a line."""
    if model not in MAX_ITERATIONS:
        raise UnknownNameError("geometric model", model, MAX_ITERATIONS)
    query = matches.query_points.astype(np.float64)
    reference = matches.reference_points.astype(np.float64)
    finite = _finite(query, reference)
    if np.count_nonzero(finite) < acceptance.SAMPLES[model] + acceptance.MIN_AGREEING:
        return None
    if _on_a_line(query[finite]) or _on_a_line(reference[finite]):
        return None
    return acceptance.Evidence.of(
        query,
        reference,
        matches.query_size or _extent(query[finite]),
        matches.reference_size or _extent(reference[finite]),
        matches.evident,
        matches.query_scale,
        matches.reference_scale,
        matches.joint,
    )


def _finite(query: Points, reference: Points) -> Mask:
    """Tell which pairs have finite places, (N,)."""
    sums = query[:, 0] + query[:, 1] + reference[:, 0] + reference[:, 1]
    return np.asarray(np.isfinite(sums), np.bool_)


def _judge(
    evidence: acceptance.Evidence, matrix: Points | None, model: str, threshold: float
) -> GeometricModel | None:
    """Return the model; None where it cannot be a camera's, its pairs lie on a line, or it is no
    better than chance."""
    matrix = _possible(matrix, model)
    if matrix is None:
        return None
    query, reference = evidence.query, evidence.reference
    residuals, inliers = agreeing(matrix, model, query, reference, threshold)
    if _on_a_line(query[inliers]) or _on_a_line(reference[inliers]):
        return None
    confidence = acceptance.confidence(evidence, matrix, model, threshold)
    if confidence < acceptance.MIN_CONFIDENCE:
        return None
    rms = float(np.sqrt(np.mean(residuals[inliers] ** 2)))
    return GeometricModel("homography" if model == "homography" else "fundamental",
                          matrix, inliers, rms, confidence)  # fmt: skip


def _search(
    query: Points,
    reference: Points,
    model: str,
    threshold: float,
    seed: int,
    sampler: int,
    effort: int | None,
) -> Points | None:
    """Run MAGSAC++; None where it found nothing.

    Args:
        query, reference: (N, 2) px; for ``cv2.SAMPLING_PROSAC`` the best pairs first.
    """
    params = cv2.UsacParams()
    params.score = cv2.SCORE_METHOD_MAGSAC
    params.loMethod = cv2.LOCAL_OPTIM_SIGMA
    if hasattr(params, "final_polisher"):  # OpenCV 4.6, Ubuntu 24.04's, polishes as it likes
        params.final_polisher = cv2.MAGSAC
    params.sampler = sampler
    params.confidence = CONFIDENCE
    params.maxIterations = MAX_ITERATIONS[model] if effort is None else effort
    params.threshold = threshold
    params.randomGeneratorState = seed
    params.isParallel = False  # threads would make the answer depend on the machine's load
    find = cv2.findHomography if model == "homography" else cv2.findFundamentalMat
    try:
        found, _ = find(query, reference, params)
    except cv2.error:
        return None  # USAC throws on some degenerate sets instead of finding nothing
    if found is None or np.shape(found) != (3, 3) or not np.isfinite(found).all():
        return None
    return np.asarray(found, np.float64)


def _possible(matrix: Points | None, model: str) -> Points | None:
    """Return a matrix normalised; None where it cannot be a camera's."""
    if matrix is None:
        return None
    if model == "fundamental":
        norm = float(np.linalg.norm(matrix))
        return matrix / norm if norm > 0.0 else None
    if abs(matrix[2, 2]) < 1e-12:
        return None
    matrix = matrix / matrix[2, 2]
    # A plane seen from one side keeps its handedness, and no view shrinks it a thousandfold.
    return matrix if 1e-6 < float(np.linalg.det(matrix)) < 1e6 else None


def _on_a_line(points: Points) -> bool:
    """Tell whether all points lie on one line or in one spot, to within half a pixel."""
    if len(points) < 3:
        return True
    centred = points - np.ones(len(points)) @ points / len(points)
    (xx, xy), (_, yy) = (centred.T @ centred / len(points)).tolist()
    least_variance = 0.5 * (xx + yy) - math.hypot(0.5 * (xx - yy), xy)
    return bool(least_variance < 0.5**2)


def _extent(points: Points) -> tuple[float, float]:
    """Return the size of the least image that holds the points, its margin too."""
    width, height = points.max(axis=0) + 2.0 * acceptance.BORDER
    return float(width), float(height)

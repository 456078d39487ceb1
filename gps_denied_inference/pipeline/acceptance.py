"""How far a geometric model is from chance: the a-contrario test that accepts or refuses it.

Were the pairs of two images luck alone, some model would still agree with several of them, since
the search tries every sample. The number of false alarms (NFA; Moisan, Moulon and Monasse 2012) is
how many models as good as the one found such pairs are expected to give::

    NFA = (n - s) * C(n, k) * C(k, s) * p(r)^(k - s)

for n pairs, a model that s of them define, and k that agree to within r px; p(r) is the chance
that one pair of the background agrees so well. The least over all r up to the threshold counts, so
that few exact pairs weigh as much as many rough ones. What confidence means is 10^-confidence such
models per pair of images; it does not depend on the scene, the network or the size of the image.

The formula takes pairs to be independent, and images to be more than noise. So:

- Pairs nearer to each other than a descriptor's support see the same pixels, and matcher networks
  move neighbours alike: one pair counts per cell of that size, in either image.
- p(r) is the greater of what the images' size gives and what these points give when they are
  paired anew: clumps of points agree with too much.
- Pairs in a margin, where a network sees the padding around the image, and pairs where an image
  has no contrast beyond its noise (:mod:`contrast`) are neither n nor k.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gps_denied_inference.errors import UnknownNameError
from gps_denied_inference.pipeline.residuals import Mask, Points, agreeing

Size = tuple[float, float]
"""Width and height, px."""

SAMPLES = {"similarity": 2, "affine": 3, "homography": 4, "fundamental": 7}
"""s: pairs that define a model."""
MIN_CONFIDENCE = 3.0
"""Accepted from here: one false alarm in a thousand pairs of images."""
MIN_AGREEING = 8
"""Pairs beyond the sample that must agree, neighbours or not: a model bent to fewer says little of
the rest of the image, be it by chance or not."""
MIN_SURPLUS = 4
"""Independent pairs beyond the sample that must agree, however exactly."""
SUPPORT = 16.0
"""px of what the network saw: side of a cell in which pairs are one observation, where each pair
was found by its own two descriptors; about what a descriptor sees."""
JOINT_SUPPORT = 40.0
"""The same where a matcher network found all pairs together, and moves neighbours alike, and for
models that map points to points."""
MOST_SUPPORT = 1.0 / 20.0
"""Share of the image diagonal that a cell's side is at most, so that small images have cells."""
BORDER = 16.0
"""px of what the network saw: margin without evidence."""
LEAST_RESIDUAL = 0.5
"""px of what the network saw: keypoints are no more exact, so that less weighs no more."""
SHIFTS = 16
"""How often each inlier is paired anew."""
MOST_ANEW = 128
"""Inliers that are paired anew; of more, every n-th is."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """Pairs of points and what is known of the images that they come from.

    Attributes:
        query, reference: (N, 2) float64, px; pair i joins row i of both.
        query_size, reference_size: (width, height) px of the images.
        query_scale, reference_scale: px of the image per px of what the network saw of it.
        joint: True where a matcher network found all pairs together.
        counts: (N,) bool, pairs that are evidence for or against a model: inside both images'
            margins, and of contrast beyond the noise. See :meth:`of`.
    """

    query: Points
    reference: Points
    query_size: Size
    reference_size: Size
    counts: Mask
    query_scale: float = 1.0
    reference_scale: float = 1.0
    joint: bool = False

    @classmethod
    def of(
        cls,
        query: npt.NDArray[np.floating],
        reference: npt.NDArray[np.floating],
        query_size: Size,
        reference_size: Size,
        evident: Mask | None = None,
        query_scale: float = 1.0,
        reference_scale: float = 1.0,
        joint: bool = False,
    ) -> Evidence:
        """Build from pairs; those in a margin, or not finite, do not count.

        Args:
            evident: (N,) bool, pairs with contrast beyond the noise in both images; None = all.
        """
        here, there = query.astype(np.float64), reference.astype(np.float64)
        counts = inside(here, query_size, query_scale)
        counts &= inside(there, reference_size, reference_scale)
        if evident is not None:
            counts = counts & evident
        return cls(
            here, there, query_size, reference_size, counts, query_scale, reference_scale, joint
        )  # fmt: skip


def inside(points: Points, size: Size, scale: float = 1.0) -> Mask:
    """Tell which points (N, 2) px lie in the image but not in its margin."""
    margin = BORDER * scale
    limit = np.asarray(size) - 1.0 - margin
    x, y = points[:, 0], points[:, 1]
    within = (x >= margin) & (x <= limit[0]) & (y >= margin) & (y <= limit[1])
    return np.asarray(within, np.bool_)


def confidence(evidence: Evidence, matrix: Points, model: str, threshold: float) -> float:
    """Return -log10 of the number of false alarms: above 0 is better than chance.

    Args:
        evidence: all pairs that the model was searched in.
        matrix: (3, 3) float64, as :func:`residuals.agreeing` takes it.
        model: one of :data:`SAMPLES`.
        threshold: px, greatest residual of an inlier.

    Returns:
        At least :data:`MIN_CONFIDENCE` where the model is to be accepted; 0 where fewer than
        :data:`MIN_SURPLUS` independent pairs beyond the sample agree.

    Raises:
        UnknownNameError: no such model.
    """
    if model not in SAMPLES:
        raise UnknownNameError("geometric model", model, SAMPLES)
    sample = SAMPLES[model]
    query, reference = evidence.query[evidence.counts], evidence.reference[evidence.counts]
    residuals, inliers = agreeing(matrix, model, query, reference, threshold)
    # A plane is smooth: neighbours that are wrong alike agree with one together.
    support = JOINT_SUPPORT if evidence.joint or model != "fundamental" else SUPPORT
    here = _cells(query, support * evidence.query_scale, evidence.query_size)
    there = _cells(reference, support * evidence.reference_scale, evidence.reference_size)
    independent = np.flatnonzero(inliers)
    independent = independent[np.argsort(residuals[independent], kind="stable")]
    for cell in (here, there):  # the most exact pair of each cell stands for it
        _, first = np.unique(cell[independent], return_index=True)
        independent = independent[np.sort(first)]
    k = len(independent)
    if k < sample + MIN_SURPLUS or np.count_nonzero(inliers) < sample + MIN_AGREEING:
        return 0.0
    n = max(k, min(len(np.unique(here)), len(np.unique(there))))
    least = min(LEAST_RESIDUAL * evidence.reference_scale, threshold)
    reach = np.clip(residuals[independent], least, threshold)
    background, _ = agreeing(matrix, model, *_anew(query, reference, inliers), threshold)
    chance = _chance(model, evidence.reference_size, threshold, background)
    order = 1.0 if model == "fundamental" else 2.0
    log_p = np.minimum(np.log10(chance) + order * np.log10(reach / threshold), 0.0)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log10(np.arange(1, n + 1)))])
    count = np.arange(sample + MIN_SURPLUS, k + 1)
    log_nfa = (
        np.log10(max(n - sample, 1))
        + (log_factorial[n] - log_factorial[count] - log_factorial[n - count])
        + (log_factorial[count] - log_factorial[sample] - log_factorial[count - sample])
        + (count - sample) * log_p[count - 1]
    )
    return max(0.0, -float(log_nfa.min()))


def _anew(query: Points, reference: Points, inliers: Mask) -> tuple[Points, Points]:
    """Pair inliers' query points with the reference points of other pairs, the same every time."""
    n, agreeing_ones = len(query), np.flatnonzero(inliers)
    agreeing_ones = agreeing_ones[:: max(1, -(-len(agreeing_ones) // MOST_ANEW))]
    shift = max(1, n // (SHIFTS + 1)) * np.arange(1, min(SHIFTS, n - 1) + 1)
    others = (agreeing_ones[:, None] + shift) % n
    return np.repeat(query[agreeing_ones], len(shift), axis=0), reference[others.ravel()]


def _cells(points: Points, side: float, size: Size) -> npt.NDArray[np.int64]:
    side = min(side, MOST_SUPPORT * float(np.hypot(*size)))
    cells = np.floor(np.minimum(np.maximum(points / side, -1e6), 1e6)).astype(np.int64)
    return np.asarray(cells[:, 1] * 2_000_003 + cells[:, 0], np.int64)


def _chance(model: str, size: Size, threshold: float, background: Points) -> float:
    """Return the chance that a random pair agrees to within the threshold.

    The background is counted in a wider band, in which chance finds more than a few.
    """
    width, height = np.maximum(size, 1.0)
    if model == "fundamental":
        by_size = 2.0 * threshold * np.hypot(width, height) / (width * height)
        band, share = 2.0, 2.0
    else:
        by_size = np.pi * threshold**2 / (width * height)
        band, share = 4.0, 16.0
    observed = np.mean(background < band * threshold) / share if len(background) else 0.0
    return float(min(1.0, max(by_size, observed)))

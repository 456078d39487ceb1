"""Similarities of the plane, and the search for one that many pairs agree with.

Points of the plane are complex numbers, x + iy with y up: a similarity w = a z + b turns by the
angle of a and scales by its modulus; what this form cannot express is a mirror.
"""

from __future__ import annotations

import cmath
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Complex = npt.NDArray[np.complex128]
Mask = npt.NDArray[np.bool_]

SAMPLES = 600
"""Pairs of pairs tried: with one right pair in ten, both of a sample are right six times."""
POLISHED = 5
"""Best samples that are fitted to their inliers."""
NEARLY_ALL = 0.9
"""Share of the pairs with which a similarity needs no samples: no other can have many more."""
IN_CACHE = 8_192
"""Residuals that are computed at a time."""


@dataclass(frozen=True)
class Similarity:
    """w = a z + b."""

    a: complex
    b: complex

    def __call__(self, z: Complex) -> Complex:
        """Apply to points."""
        return np.asarray(self.a * z + self.b, np.complex128)

    @property
    def scale(self) -> float:
        """Factor of length."""
        return abs(self.a)

    @property
    def angle(self) -> float:
        """Turn, rad, anticlockwise."""
        return math.atan2(self.a.imag, self.a.real)

    def after(self, first: Similarity) -> Similarity:
        """Return the similarity that applies ``first``, then this one."""
        return Similarity(self.a * first.a, self.a * first.b + self.b)


@dataclass(frozen=True)
class Bounds:
    """What a similarity must keep to.

    Attributes:
        least_scale, most_scale: of the modulus of a.
        most_turn: rad, of the angle of a, either way.
    """

    least_scale: float
    most_scale: float
    most_turn: float

    def hold(self, a: Complex) -> Mask:
        """Tell which a (N,) keep to them."""
        size = np.abs(a)
        kept: Mask = (size >= self.least_scale) & (size <= self.most_scale)
        kept &= np.abs(np.angle(a)) <= self.most_turn
        return kept

    def holds(self, a: complex) -> bool:
        """Tell whether one a keeps to them."""
        return (
            self.least_scale <= abs(a) <= self.most_scale and abs(cmath.phase(a)) <= self.most_turn
        )


@dataclass(frozen=True, eq=False)
class Agreement:
    """A similarity and the pairs that agree with it.

    Attributes:
        similarity: least squares over the inliers.
        inliers: (M,) bool.
        rms: residual of the inliers, in the unit of w.
    """

    similarity: Similarity
    inliers: Mask
    rms: float

    @property
    def count(self) -> int:
        """Number of inliers."""
        return int(np.count_nonzero(self.inliers))


def search(
    z: Complex, w: Complex, threshold: float, bounds: Bounds, seed: int = 0
) -> Agreement | None:
    """Find the similarity within ``bounds`` that most pairs agree with.

    Args:
        z, w: (M,) points and their partners.
        threshold: greatest residual of an inlier, in the unit of w.
        seed: of the random sampling: the same input gives the same answer.

    Returns:
        The agreement, or None where no sample keeps to the bounds.
    """
    count = len(z)
    if count < 2:
        return None
    nearly_all = _of_all(z, w, threshold, bounds)
    if nearly_all is not None and nearly_all.count >= NEARLY_ALL * count:
        return nearly_all
    random = np.random.default_rng(seed)
    if count * (count - 1) // 2 <= SAMPLES:
        first, second = np.triu_indices(count, 1)
    else:
        first = random.integers(0, count, SAMPLES)
        second = (first + random.integers(1, count, SAMPLES)) % count
    base = z[second] - z[first]
    apart = np.abs(base) > 0.0
    first, second, base = first[apart], second[apart], base[apart]
    a = (w[second] - w[first]) / base
    kept = bounds.hold(a)
    if not kept.any():
        return None
    a, first = a[kept], first[kept]
    b = w[first] - a * z[first]
    cost = _costs(a, b, z, w, threshold)
    best: Agreement | None = None
    seen: set[bytes] = set()
    for index in np.argsort(cost)[:POLISHED]:
        similarity = Similarity(a[index], b[index])
        inliers = np.abs(similarity(z) - w) < threshold
        found = _polish(z, w, similarity, inliers, threshold, bounds, seen)
        if found is not None and (
            best is None or (found.count, -found.rms) > (best.count, -best.rms)
        ):
            best = found
    return best


def _of_all(z: Complex, w: Complex, threshold: float, bounds: Bounds) -> Agreement | None:
    """Return what most pairs agree with where few do not."""
    start = fit(z, w)
    if start is None or not bounds.holds(start.a):
        return None
    inliers = np.abs(start(z) - w) < threshold
    return _polish(z, w, start, inliers, threshold, bounds) if inliers.any() else None


def _costs(
    a: Complex, b: Complex, z: Complex, w: Complex, threshold: float
) -> npt.NDArray[np.float64]:
    """Return for each similarity (N,) the squared residuals of all pairs (M,), summed up.

    A residual beyond the threshold counts as the threshold:
    truncated squares rank models of equal count by how well their inliers fit (MSAC).
    """
    # As products of matrices, about the middle of w: maps are kilometres wide, residuals metres.
    middle = w.mean()
    ones = np.ones(len(z))
    off = b - middle
    real = np.stack([a.real, -a.imag, off.real, -np.ones(len(a))], axis=1)
    imag = np.stack([a.imag, a.real, off.imag, -np.ones(len(a))], axis=1)
    to_real = np.stack([z.real, z.imag, ones, (w - middle).real])
    to_imag = np.stack([z.real, z.imag, ones, (w - middle).imag])
    costs = np.empty(len(a))
    some = max(1, IN_CACHE // len(z))
    for first in range(0, len(a), some):
        now = slice(first, first + some)
        squares, more = real[now] @ to_real, imag[now] @ to_imag
        np.square(squares, out=squares)
        np.square(more, out=more)
        squares += more
        np.minimum(squares, threshold**2, out=squares).sum(axis=1, out=costs[now])
    return costs


def fit(z: Complex, w: Complex) -> Similarity | None:
    """Return the least-squares similarity of pairs (M,), None for fewer than two points."""
    if len(z) < 2:
        return None
    z_mean, w_mean = complex(z.sum()) / len(z), complex(w.sum()) / len(w)
    centred = z - z_mean
    spread = float(np.vdot(centred, centred).real)
    if spread <= 0.0:
        return None
    a = complex(np.vdot(centred, w - w_mean)) / spread
    return Similarity(a, w_mean - a * z_mean)


def _polish(
    z: Complex,
    w: Complex,
    start: Similarity,
    inliers: Mask,
    threshold: float,
    bounds: Bounds,
    seen: set[bytes] | None = None,
) -> Agreement | None:
    """Fit to the inliers until they stay the same.

    Args:
        seen: sets of inliers that were fitted to before, added to: from the same inliers comes the
            same agreement, and None is returned.
    """
    similarity, seen = start, set() if seen is None else seen
    for _ in range(5):
        if (key := inliers.tobytes()) in seen:
            return None
        seen.add(key)
        fitted = fit(z[inliers], w[inliers])
        if fitted is None or not bounds.holds(fitted.a):
            break
        again = np.abs(fitted(z) - w) < threshold
        if np.count_nonzero(again) < np.count_nonzero(inliers):
            break
        similarity = fitted
        if np.array_equal(again, inliers):
            break
        inliers = again
    if np.count_nonzero(inliers) < 2:
        return None
    residuals = np.abs(similarity(z[inliers]) - w[inliers])
    return Agreement(similarity, inliers, float(np.sqrt(np.mean(residuals**2))))

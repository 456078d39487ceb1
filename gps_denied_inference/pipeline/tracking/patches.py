"""The looks of tracked points, kept from where each track began, and found again in later images.

A point is found where the image looks like the patch around it did when its track began, turned
and scaled as the ground has been since. Since every frame is compared with that one patch, errors
do not add up from frame to frame, and where the patch no longer fits the point counts as lost.

The search is Lucas and Kanade's in its inverse compositional form, for all points at once: what
depends on the patch alone is made when it is cut, and each step resamples the image once. Of a
patch every second pixel takes part, and the image is smoothed by so much that these stand for all.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from gps_denied_inference.pipeline.features import FloatArray

WINDOW = 17
"""px, side of the patch."""

LIKENESS = 0.7
"""Least correlation of the patch then and now, which neither brightness nor contrast changes."""

FARTHEST = 4.0
"""px from the start: a search that goes farther has left the point."""

STEPS = 6
CONVERGED = 0.1
"""px: a search ends with a step no longer than this, of at most :data:`STEPS`. What is left then is
ten times less."""

MOST_IDLE = 0.7
"""Patches that are found or lost are taken out of the search where fewer than this share go on."""

FLAT = 1.0
"""Grey levels of contrast along the weaker direction, below which a patch cannot be placed."""

ROUNDING = 1.0
"""Squared contrast that every patch is taken to have: flat ones are like nothing."""

MOST_SCALED = 1.5
"""A patch seen this much larger or smaller than it was cut is cut anew."""

Rows = npt.NDArray[np.integer] | slice

_HALF = WINDOW // 2
APART = 2
"""px between samples of a patch, across and down."""


def _grid(half: int) -> npt.NDArray[np.intp]:
    """Return (2, N) px, x and y of the pixels around a point."""
    axis = np.arange(-half, half + 1)
    return np.stack([g.ravel() for g in np.meshgrid(axis, axis)])


# Whole px apart, all are interpolated alike.
_SAMPLES = APART * _grid(_HALF // APART)
_PIXELS = _SAMPLES.shape[1]
_ONES = np.ones(_PIXELS, np.float32)
_GRID = np.concatenate([_SAMPLES.astype(np.float32), _ONES[None]])
_WIDE = _grid(_HALF + 1).astype(np.float32)
_HERE = (_SAMPLES[1] + _HALF + 1) * (WINDOW + 2) + _SAMPLES[0] + _HALF + 1


@dataclass(frozen=True, eq=False)
class Patches:
    """T patches of P samples.

    Attributes:
        filters: (T, 3, P) float32. Row 0 is what the patch looks like, of zero mean and unit norm;
            rows 1 and 2 say, multiplied with an image's pixels there and divided by their contrast,
            how far in px of the patch it lies beside the point in x and y. All 0 without a patch.
        warps: (T, 2, 2) float32, from px of the patch to px of the newest image.
        present: (T,) bool, where there is a patch.
    """

    filters: FloatArray
    warps: FloatArray
    present: npt.NDArray[np.bool_]

    @classmethod
    def cut(cls, image: FloatArray, points: FloatArray) -> Patches:
        """Cut patches around points (T, 2), px of ``image``; those not wholly in it are empty."""
        count = len(points)
        x, y = _WIDE
        wide = _sample(image, points[:, :1] + x, points[:, 1:] + y)
        filters = np.empty((count, 3, _PIXELS), np.float32)
        filters[:, 0] = wide[:, _HERE]
        filters[:, 1] = 0.5 * (wide[:, _HERE + 1] - wide[:, _HERE - 1])
        filters[:, 2] = 0.5 * (wide[:, _HERE + WINDOW + 2] - wide[:, _HERE - WINDOW - 2])
        filters -= (filters @ _ONES)[:, :, None] / _PIXELS
        look = filters[:, 0]
        contrast = np.sqrt(np.einsum("tp,tp->t", look, look) + ROUNDING)
        look /= contrast[:, None]
        # A change of contrast moves nothing: its share of the slopes is taken out.
        for slope in (filters[:, 1], filters[:, 2]):
            slope -= np.einsum("tp,tp->t", slope, look)[:, None] * look
        xx, xy, yy = (
            np.einsum("tp,tp->t", filters[:, i], filters[:, j]) for i, j in ((1, 1), (1, 2), (2, 2))
        )
        least = 0.5 * (xx + yy) - np.sqrt(0.25 * (xx - yy) ** 2 + xy**2)
        usable = inside(image, points) & (least > FLAT**2)
        scale = np.where(usable, contrast / np.where(usable, xx * yy - xy**2, 1.0), 0.0)
        slope_x = filters[:, 1].copy()
        filters[:, 1] = (scale * yy)[:, None] * slope_x - (scale * xy)[:, None] * filters[:, 2]
        filters[:, 2] = (scale * xx)[:, None] * filters[:, 2] - (scale * xy)[:, None] * slope_x
        filters[~usable] = 0.0
        return cls(filters, np.tile(np.eye(2, dtype=np.float32), (count, 1, 1)), usable)

    @classmethod
    def arranged(cls, count: int, *parts: tuple[Patches, Rows, Rows]) -> Patches:
        """Return ``count`` patches put together from (patches, rows of these, rows to be)."""
        made = cls(
            np.empty((count, 3, _PIXELS), np.float32),
            np.empty((count, 2, 2), np.float32),
            np.empty(count, np.bool_),
        )
        for patches, source, target in parts:
            made.filters[target] = patches.filters[source]
            made.warps[target] = patches.warps[source]
            made.present[target] = patches.present[source]
        return made

    def select(self, rows: Rows) -> Patches:
        """Return some of the patches, by index."""
        return Patches(self.filters[rows], self.warps[rows], self.present[rows])

    def usable(self, rows: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
        """Tell which of some patches still have the scale of the image to within a factor."""
        (a, b), (c, d) = self.warps[rows].transpose(1, 2, 0)
        scale = np.abs(a * d - b * c)
        return np.asarray((scale > MOST_SCALED**-2) & (scale < MOST_SCALED**2), np.bool_)

    def moved(self, motion: npt.NDArray[np.float32]) -> Patches:
        """Return the patches, turned and scaled on by (T, 2, 2)."""
        return Patches(self.filters, np.asarray(motion @ self.warps, np.float32), self.present)

    def find(
        self, image: FloatArray, start: FloatArray
    ) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """Find the patches' points in an image.

        Args:
            image: (H, W) float32, see :attr:`View.smooth`.
            start: (T, 2) px of it, where each should be, to within about two px.

        Returns:
            (T, 2) px of ``image``, and (T,) which of them were found.
        """
        place = np.array(start, np.float32)
        found = np.zeros(len(place), np.bool_)
        active = inside(image, place) & self.present
        rows, filters, warps = np.arange(len(place)), self.filters, self.warps
        for _ in range(STEPS):
            if np.count_nonzero(active) < MOST_IDLE * len(active):
                rows, filters, warps = rows[active], filters[active], warps[active]
                active = active[active]
            if not len(rows):
                break
            affine = np.concatenate([warps, place[rows, :, None]], axis=2)
            now = _sample(image, affine[:, 0] @ _GRID, affine[:, 1] @ _GRID)
            energy = np.einsum("tp,tp->t", now, now) - (now @ _ONES) ** 2 / _PIXELS
            contrast = np.sqrt(np.maximum(energy, 0.0) + ROUNDING)
            answer = np.einsum("tfp,tp->tf", filters, now) / contrast[:, None]
            step = np.einsum("tij,tj->ti", warps, answer[:, 1:])
            step[~active] = 0.0
            place[rows] -= step
            still = np.hypot(step[:, 0], step[:, 1]) <= CONVERGED
            found[rows[active & still & (answer[:, 0] > LIKENESS)]] = True
            off = place[rows] - start[rows]
            active &= ~still & (np.hypot(off[:, 0], off[:, 1]) < FARTHEST)
        return place, found & inside(image, place)


def inside(image: npt.NDArray[np.generic], points: FloatArray) -> npt.NDArray[np.bool_]:
    """Tell which points (N, 2), px of an image, have their whole patch in view."""
    rows, columns = image.shape
    x, y = points[:, 0], points[:, 1]
    across = (x >= _HALF) & (x <= columns - 1 - _HALF)
    return np.asarray(across & (y >= _HALF) & (y <= rows - 1 - _HALF), np.bool_)


def _sample(image: FloatArray, x: FloatArray, y: FloatArray) -> FloatArray:
    """Return the image's values at places (N, P), (N, P) float32."""
    if not len(x):
        return np.zeros(x.shape, np.float32)
    sampled = cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(sampled, np.float32)

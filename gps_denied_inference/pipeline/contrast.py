"""Where an image shows more than its sensor's noise.

Sensor noise is white: averaged over a cell of m pixels its variance falls to 1/m. What a scene
shows does not fall so. An image is therefore averaged over cells as large as a network's first
features, the second differences between neighbouring cells (brightness that merely slopes has
none) are held against what noise as strong as between near pixels there would leave of them, and
where they are not several times greater nothing but noise has been seen.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

CELL = 4
"""Side of a cell, px of the image that the network sees."""
WINDOW = 8
"""Cells in a row over which energies are averaged."""
LEAST_NOISE = 1.0
"""Grey levels squared: no 8-bit image is taken to have less noise; coding rounds that far."""
EVIDENT = 3.0
"""Energy over the noise's, from which there is contrast. White noise alone stays below 2.5."""
_HALF_SQUARES = (np.arange(256, dtype=np.float32) ** 2 / 2.0)[None]


class Contrast:
    """Contrast of one image, by place; measured when it is first asked for.

    Args:
        image: uint8 (H, W) or (H, W, 3) RGB, as received: resizing it would hide its noise. It is
            kept, and not to be changed, until then.
        width, height: px, what the network sees of it; the smaller of both sizes sets the cell.
    """

    def __init__(self, image: npt.NDArray[np.uint8], width: int, height: int) -> None:
        rows, columns = image.shape[:2]
        self._image: npt.NDArray[np.uint8] | None = image
        self._grid = (max(min(columns, width) // CELL, 3), max(min(rows, height) // CELL, 3))
        self._size = (columns, rows)
        self._evident = np.zeros(self._grid[::-1], np.bool_)

    @property
    def evident(self) -> npt.NDArray[np.bool_]:
        """(rows, columns) bool, cells with contrast beyond the noise."""
        image = self._image
        if image is not None:
            if image.shape[1] >= 3:  # else no second difference: nothing is known of its noise
                self._evident = _measured(image, self._grid)
            self._image = None
        return self._evident

    def at(self, points: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
        """Tell at which points (N, 2), px of the image, there is contrast."""
        rows, columns = self.evident.shape
        column = _cell(points[:, 0], columns, self._size[0])
        row = _cell(points[:, 1], rows, self._size[1])
        found: npt.NDArray[np.bool_] = self.evident[row, column]
        return found


def _cell(place: npt.NDArray[np.floating], count: int, size: int) -> npt.NDArray[np.intp]:
    """Tell in which of the cells along an axis of ``size`` px each place is; NaN is in cell 0."""
    cell = np.fmin(np.fmax((place + 0.5) * (count / size), 0), count - 1)
    return np.asarray(cell, np.intp)


def _measured(image: npt.NDArray[np.uint8], grid: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return which cells (rows, columns) of an image have contrast; ``grid`` counts them (x, y)."""
    rows, columns = image.shape[:2]
    grey = image if image.ndim == 2 else image[:, :, 1]
    lines = grey[::CELL]
    noise = cv2.LUT(cv2.absdiff(lines[:, 2:], lines[:, :-2]), _HALF_SQUARES)
    noise, cells = _average(_means(np.asarray(noise), grid)), _means(grey, grid)
    along, down = np.zeros_like(cells), np.zeros_like(cells)
    along[:, 1:-1] = np.square(cells[:, :-2] - 2.0 * cells[:, 1:-1] + cells[:, 2:])
    down[1:-1] = np.square(cells[:-2] - 2.0 * cells[1:-1] + cells[2:])
    energy = _average(along + down)
    area = rows * columns / (grid[0] * grid[1])
    # A second difference holds 1 + 4 + 1 variances of a cell, along and down.
    expected = 12.0 / area * np.maximum(noise, LEAST_NOISE)
    return np.asarray(energy > EVIDENT * expected, np.bool_)


def _means(
    values: npt.NDArray[np.uint8] | npt.NDArray[np.float32], grid: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """Return the means (rows, columns) over cells of equal size, which may cut through pixels.

    As of ``cv2.resize`` with INTER_AREA, which takes far longer where a cell is no whole pixels.
    Between whole pixels the sum over all that lies above and to the left is linear.
    """
    rows, columns = values.shape
    exact = values.dtype == np.uint8 and values.size < 2**31 // 255
    sums = cv2.integral(values, sdepth=cv2.CV_32S if exact else cv2.CV_64F)
    row, below = _edges(rows, grid[1])
    column, beside = _edges(columns, grid[0])
    sums = sums[row] + (sums[row + 1] - sums[row]) * below[:, None]
    sums = sums[:, column] + (sums[:, column + 1] - sums[:, column]) * beside
    means = np.diff(np.diff(sums, axis=0), axis=1) * (grid[0] * grid[1] / (rows * columns))
    return np.asarray(means, np.float32)


def _edges(length: int, count: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Return the whole px before each edge of ``count`` cells, and what lies beyond it."""
    edges = np.arange(count + 1, dtype=np.float64) * (length / count)
    whole = np.minimum(edges.astype(np.intp), length - 1)
    return whole, np.asarray(edges - whole, np.float64)


def _average(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.asarray(cv2.blur(values, (WINDOW, WINDOW)), np.float32)

"""Sampling tables shared by the torch module and the ONNX graph of an extractor.

Full-resolution pixel ``x`` of an axis of ``pixels`` px falls on coordinate
``x / (pixels - 1) * cells - 0.5`` of a map with ``cells`` cells: XFeat was trained and published
with this mapping (normalised with corners, sampled without), so it is kept to the letter. Pixels
are whole numbers, so every weight can be a table; cells outside the map count as zero.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_CUBIC = -0.75  # the bicubic coefficient of torch's grid_sample


def _coordinates(pixels: int, cells: int) -> npt.NDArray[np.float64]:
    return np.arange(pixels, dtype=np.float64) / (pixels - 1) * cells - 0.5


def bilinear_matrix(pixels: int, cells: int) -> npt.NDArray[np.float32]:
    """Return the (pixels, cells) float32 matrix that samples one axis bilinearly.

    The row of the last pixel is zero: the published code looks the heat of that pixel up half a
    pixel outside the image, finds zero and drops the keypoint.
    """
    position = _coordinates(pixels, cells)
    low = np.floor(position).astype(np.int64)
    matrix = np.zeros((pixels, cells), dtype=np.float32)
    rows = np.arange(pixels)
    for cell, weight in ((low, 1.0 - (position - low)), (low + 1, position - low)):
        inside = (cell >= 0) & (cell < cells)
        matrix[rows[inside], cell[inside]] = weight[inside]
    matrix[-1] = 0.0
    return matrix


def bicubic_taps(pixels: int, cells: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Return for each pixel of an axis its four cells (pixels, 4) int32 and weights float32.

    Cells outside the map are clamped into it and weigh zero.
    """
    position = _coordinates(pixels, cells)
    low = np.floor(position).astype(np.int64)
    t = position - low

    def near(d: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return ((_CUBIC + 2) * d - (_CUBIC + 3)) * d * d + 1

    def far(d: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return ((_CUBIC * d - 5 * _CUBIC) * d + 8 * _CUBIC) * d - 4 * _CUBIC

    cell = low[:, None] + np.arange(-1, 3)
    weight = np.stack([far(1 + t), near(t), near(1 - t), far(2 - t)], axis=1)
    weight[(cell < 0) | (cell >= cells)] = 0.0
    return np.clip(cell, 0, cells - 1).astype(np.int32), weight.astype(np.float32)

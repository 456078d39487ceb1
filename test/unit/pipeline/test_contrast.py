"""Means over cells that cut through pixels are those of the library that takes longer for them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from gps_denied_inference.pipeline.contrast import _means


@pytest.mark.parametrize(
    ("size", "grid"),
    [((90, 160), (40, 22)), ((91, 163), (37, 23)), ((48, 64), (16, 12)), ((5, 9), (3, 3))],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_means_of_cells(size: tuple[int, int], grid: tuple[int, int], dtype: type) -> None:
    values = np.random.default_rng(5).integers(0, 256, size).astype(dtype)
    expected = cv2.resize(values.astype(np.float64), grid, interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(_means(values, grid), expected, atol=2e-4)


def test_means_of_an_image_whose_sum_is_beyond_32_bits() -> None:
    values = np.full((3000, 3000), 255, np.uint8)
    np.testing.assert_array_equal(_means(values, (7, 7)), np.full((7, 7), 255.0, np.float32))

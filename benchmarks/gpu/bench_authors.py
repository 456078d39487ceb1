"""The authors' own code on the GPU; a part of ``bench_h100.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.published import Found, Image


def authors_answers(
    extract: Callable[[Image], Found], frames: list[Image], tf32: bool
) -> list[dict[str, npt.NDArray[Any]]]:
    """Extract with the authors' code, with or without TF32 in cuDNN's convolutions."""
    import torch

    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = tf32
    try:
        found = [extract(image) for image in frames]
    finally:
        torch.backends.cudnn.allow_tf32 = before
    return [one | {"count": np.array([len(one["keypoints"])])} for one in found]

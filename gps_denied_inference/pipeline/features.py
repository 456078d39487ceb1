"""What every stage of the pipeline hands on: the local features of one image.

Where tracks are kept, a point that goes on is where its track is (see :mod:`flow`), and one that
was not detected this time carries the score and descriptor of its last detection.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gps_denied_inference.pipeline.contrast import Contrast

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Features:
    """Local features of one image, in order of falling score.

    Attributes:
        keypoints: (N, 2) float32, px of the image as it was received, x right and y down, (0, 0)
            at the centre of the top-left pixel.
        scores: (N,) float32, larger is better, scale depends on the model.
        descriptors: (N, D) float32 of unit L2 norm.
        width, height: px, of that image.
        model: name of the network.
        model_sha256: hex; descriptors of different hashes must not be compared.
        track_ids: (N,) uint64, or None where tracks are not kept.
        track_ages: (N,) uint32, frames since the track began (0 = new), or None.
        scale: px of that image per px of what the network saw of it.
        contrast: where that image shows more than noise, or None where nobody measured.
    """

    keypoints: FloatArray
    scores: FloatArray
    descriptors: FloatArray
    width: int
    height: int
    model: str
    model_sha256: str
    track_ids: npt.NDArray[np.uint64] | None = None
    track_ages: npt.NDArray[np.uint32] | None = None
    scale: float = 1.0
    contrast: Contrast | None = None

    @property
    def count(self) -> int:
        """N, the number of features."""
        return int(self.keypoints.shape[0])

    def evident(self, points: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_] | None:
        """Tell which points (M, 2) px have contrast beyond the noise; None = not measured."""
        return None if self.contrast is None else self.contrast.at(points)

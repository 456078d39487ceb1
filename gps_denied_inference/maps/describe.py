"""One vector for a whole tile or view, made of its local descriptors.

How pairs of descriptor components go together over all features (their second moment), with large
values damped, projected to a fixed length. Alike views have a large cosine. The projection is made
of a fixed seed and is part of the map format.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from gps_denied_inference.pipeline.features import Features, FloatArray

DIM = 256
"""Length of the global descriptor."""
_SEED = 20_250


def describe(features: Features) -> FloatArray:
    """Return the global descriptor, (DIM,) float32 of unit norm; zeros without features."""
    descriptors = features.descriptors
    if len(descriptors) == 0:
        return np.zeros(DIM, np.float32)
    moment = descriptors.T @ descriptors / np.float32(len(descriptors))
    dim = moment.shape[0]
    upper = moment[np.triu_indices(dim)]
    damped = np.sign(upper) * np.sqrt(np.abs(upper))
    projected = damped @ _projection(dim)
    length = float(np.linalg.norm(projected))
    return np.asarray(projected / max(length, 1e-12), dtype=np.float32)


@functools.lru_cache(maxsize=4)
def _projection(dim: int) -> npt.NDArray[np.float32]:
    rows = dim * (dim + 1) // 2
    random = np.random.Generator(np.random.PCG64(_SEED))
    spread = random.standard_normal((rows, DIM), dtype=np.float32)
    return np.asarray(spread / np.float32(np.sqrt(DIM)), np.float32)

"""One vector for a whole tile or view, to tell places apart without matching.

Local descriptors go to the nearest words of a codebook that is made of some of the map's own tiles,
the residuals are summed a word (VLAD), and projected to few dimensions. Alike views have a large
cosine. The projection is made of a fixed seed and is part of the map format.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gps_denied_inference.pipeline.features import Features, FloatArray

WORDS = 32
DIM = 512
"""Length of the global descriptor."""
_ROUNDS = 10
_SEED = 20_250

Real = npt.NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class GlobalDescriptor:
    """Describes tiles and views of one map; only what one of these made is comparable.

    Attributes:
        words: (W, D) float32 of unit norm.
        mean: (DIM,) float32, what the map's tiles have in common and is taken off.
    """

    words: FloatArray
    mean: FloatArray

    @classmethod
    def train(cls, samples: Sequence[Features]) -> GlobalDescriptor:
        """Make a codebook; the same samples give the same one.

        Args:
            samples: one or more, each with features.
        """
        found = np.concatenate([sample.descriptors for sample in samples]).astype(np.float64)
        random = np.random.Generator(np.random.PCG64(_SEED))
        words = found[random.permutation(len(found))[:WORDS]]
        for _ in range(_ROUNDS):
            nearest = (found @ words.T).argmax(axis=1)
            sums = np.zeros_like(words)
            np.add.at(sums, nearest, found)
            norms = np.linalg.norm(sums, axis=1, keepdims=True)
            words = np.where(norms > 0.0, sums / np.maximum(norms, 1e-12), words)
        plain = cls(np.asarray(words, np.float32), np.zeros(DIM, np.float32))
        mean = np.mean(
            [plain._whole(part.descriptors.astype(np.float64)) for part in samples], axis=0
        )
        return cls(plain.words, np.asarray(mean, np.float32))

    @classmethod
    def from_text(cls, text: str) -> GlobalDescriptor:
        """Read what :meth:`to_text` wrote.

        Raises:
            ValueError, KeyError, TypeError: it is something else.
        """
        value = json.loads(text)
        words = np.frombuffer(bytes.fromhex(value["words"]), "<f4").reshape(value["shape"])
        mean = np.frombuffer(bytes.fromhex(value["mean"]), "<f4")
        if words.ndim != 2 or words.size == 0 or mean.shape != (DIM,):
            raise ValueError(f"a codebook of {words.shape} words and {mean.shape} values")
        if not (np.isfinite(words).all() and np.isfinite(mean).all()):
            raise ValueError("a codebook that is not finite")
        return cls(words.astype(np.float32), mean.astype(np.float32))

    def to_text(self) -> str:
        """Return JSON, the one text that stands for this."""
        return json.dumps(
            {
                "shape": list(self.words.shape),
                "words": self.words.astype("<f4").tobytes().hex(),
                "mean": self.mean.astype("<f4").tobytes().hex(),
            },
            sort_keys=True,
        )

    def describe(self, features: Features) -> FloatArray:
        """Return the global descriptor, (DIM,) float32 of unit norm; zeros without features."""
        if len(features.descriptors) == 0:
            return np.zeros(DIM, np.float32)
        return np.asarray(_unit(self._whole(features.descriptors) - self.mean), np.float32)

    def describe_tile(self, features: Features) -> FloatArray:
        """Return what :meth:`describe` does, in double precision meanwhile, for what is stored.

        The number of BLAS threads then shows in no stored digit.
        """
        if len(features.descriptors) == 0:
            return np.zeros(DIM, np.float32)
        whole = self._whole(features.descriptors.astype(np.float64))
        return np.asarray(_unit(whole - self.mean), np.float32)

    def _whole(self, local: Real) -> Real:
        """Return the (DIM,) descriptor before the mean is taken off, as precise as ``local``."""
        words = self.words.astype(local.dtype)
        nearest = (local @ words.T).argmax(axis=1)
        member = np.asarray(nearest == np.arange(len(words))[:, None], local.dtype)
        sums = member @ local - member.sum(axis=1, keepdims=True) * words
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        sums /= np.maximum(norms, 1e-12)
        return _unit(sums.ravel() @ _projection(sums.size, local.dtype.str))


def _unit(vector: Real) -> Real:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), vector.dtype)


@functools.lru_cache(maxsize=4)
def _projection(size: int, dtype: str) -> Real:
    """Return a random projection (size, DIM) that keeps angles, the same everywhere."""
    random = np.random.Generator(np.random.PCG64(_SEED))
    return random.standard_normal((size, DIM), dtype=np.float32).astype(dtype)

"""A tile's features as bytes: keypoints in 1/32 px, everything else in half precision."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from gps_denied_inference.errors import MapError
from gps_denied_inference.maps.descriptor import DIM
from gps_denied_inference.pipeline.features import Features, FloatArray

STEPS = 32
"""Of a pixel."""


@dataclass(frozen=True)
class Encoded:
    """The columns of one tile.

    Attributes:
        count: N features.
        keypoints: N x 2 little-endian uint16, 1/32 px.
        scores: N float16.
        descriptors: N x D float16.
        descriptor: DIM float16, of the whole tile.
        sha256: of everything above and the tile's place.
    """

    count: int
    keypoints: bytes
    scores: bytes
    descriptors: bytes
    descriptor: bytes
    sha256: bytes

    @property
    def size(self) -> int:
        """Bytes."""
        parts = (self.keypoints, self.scores, self.descriptors, self.descriptor, self.sha256)
        return sum(len(part) for part in parts)


def encode(id: int, features: Features, descriptor: FloatArray) -> Encoded:
    """Return a tile's columns."""
    points = np.clip(np.rint(features.keypoints * STEPS), 0, 65_535).astype("<u2").tobytes()
    scores = features.scores.astype("<f2").tobytes()
    descriptors = features.descriptors.astype("<f2").tobytes()
    whole = descriptor.astype("<f2").tobytes()
    digest = _digest(id, features.count, points, scores, descriptors, whole)
    return Encoded(features.count, points, scores, descriptors, whole, digest)


def decode(
    id: int, row: Encoded, size: int, model: str, model_sha256: str
) -> tuple[Features, FloatArray]:
    """Return features and global descriptor.

    Raises:
        MapError: a byte of the row is not the one that was written.
    """
    parts = (row.keypoints, row.scores, row.descriptors, row.descriptor)
    if _digest(id, row.count, *parts) != row.sha256:
        raise MapError(f"tile {id} is damaged: prepare the map again, or copy it anew")
    count = row.count
    steps = np.frombuffer(row.keypoints, "<u2").reshape(count, 2)
    points = np.asarray(steps / np.float32(STEPS), np.float32)
    descriptors = np.frombuffer(row.descriptors, "<f2").astype(np.float32)
    descriptors = descriptors.reshape(count, -1) if count else descriptors.reshape(0, 1)
    lengths = np.linalg.norm(descriptors, axis=1, keepdims=True)
    features = Features(
        keypoints=points,
        scores=np.frombuffer(row.scores, "<f2").astype(np.float32),
        descriptors=np.asarray(descriptors / np.maximum(lengths, 1e-12), np.float32),
        width=size,
        height=size,
        model=model,
        model_sha256=model_sha256,
    )
    return features, whole_descriptor(row.descriptor)


def whole_descriptor(data: bytes) -> FloatArray:
    """Return the global descriptor, (DIM,) float32 of unit norm."""
    vector = np.frombuffer(data, "<f2").astype(np.float32)
    if vector.shape != (DIM,):
        raise MapError(f"a global descriptor of {vector.size} values, not {DIM}: another format")
    if not np.isfinite(vector).all():
        raise MapError("a global descriptor is damaged: copy the map anew")
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), np.float32)


def _digest(id: int, count: int, *parts: bytes) -> bytes:
    digest = hashlib.sha256(f"{id} {count} {' '.join(str(len(p)) for p in parts)}\n".encode())
    for part in parts:
        digest.update(part)
    return digest.digest()

"""Pairs between the features of two images: mutual nearest neighbours, or a matcher network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gps_denied_inference.errors import InputMismatchError, InvalidParameterError
from gps_denied_inference.pipeline.features import Features, FloatArray
from gps_denied_inference.runtimes.contract import EngineHandle, InferenceRuntime
from gps_denied_inference.runtimes.outputs import OutputCheck

IndexArray = npt.NDArray[np.int32]
Tensors = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Matches:
    """Pairs between a query and a reference image; each feature is in one pair at most.

    Attributes:
        query_indices: (M,) int32, ascending, into the query's features.
        reference_indices: (M,) int32, into the reference's features.
        scores: (M,) float32, 0..1, larger is better.
        query_points: (M, 2) float32, px of the query image.
        reference_points: (M, 2) float32, px of the reference image.
        query_size, reference_size: (width, height) px of the images; None = not known.
        evident: (M,) bool, pairs where both images have contrast beyond their noise (see
            :mod:`contrast`); None = not measured, all count.
        query_scale, reference_scale: px of the images per px of what the network saw of them.
        joint: True where a network found all pairs together, so that neighbours move alike.
    """

    query_indices: IndexArray
    reference_indices: IndexArray
    scores: FloatArray
    query_points: FloatArray
    reference_points: FloatArray
    query_size: tuple[int, int] | None = None
    reference_size: tuple[int, int] | None = None
    evident: npt.NDArray[np.bool_] | None = None
    query_scale: float = 1.0
    reference_scale: float = 1.0
    joint: bool = False

    @property
    def count(self) -> int:
        """M, the number of pairs."""
        return int(self.query_indices.shape[0])

    def select(self, keep: npt.NDArray[np.bool_]) -> Matches:
        """Return the pairs where ``keep`` (M,) is true."""
        return Matches(
            self.query_indices[keep],
            self.reference_indices[keep],
            self.scores[keep],
            self.query_points[keep],
            self.reference_points[keep],
            self.query_size,
            self.reference_size,
            None if self.evident is None else self.evident[keep],
            self.query_scale,
            self.reference_scale,
            self.joint,
        )

    @classmethod
    def between(
        cls,
        query: Features,
        reference: Features,
        query_indices: npt.NDArray[np.integer],
        reference_indices: npt.NDArray[np.integer],
        scores: npt.NDArray[np.floating],
        joint: bool = False,
    ) -> Matches:
        """Build from indices into both; points are looked up."""
        q = query_indices.astype(np.int32)
        r = reference_indices.astype(np.int32)
        here, there = query.keypoints[q], reference.keypoints[r]
        return cls(
            q, r, scores.astype(np.float32), here, there,
            (query.width, query.height), (reference.width, reference.height),
            _both(query.evident(here), reference.evident(there)),
            query.scale, reference.scale, joint,
        )  # fmt: skip

    @classmethod
    def none(cls) -> Matches:
        """Return no pairs."""
        index = np.zeros(0, np.int32)
        points = np.zeros((0, 2), np.float32)
        return cls(index, index, np.zeros(0, np.float32), points, points)


class Matcher(Protocol):
    """What finds pairs between two sets of features."""

    def match(self, query: Features, reference: Features) -> Matches:
        """Match ``query`` against ``reference``.

        Raises:
            InputMismatchError: their descriptors come from different networks.
        """
        ...


class SeveralMatcher(Matcher, Protocol):
    """A matcher that may take several pairs of sets at a time."""

    @property
    def batch(self) -> int:
        """Pairs at a time that cost less than one after the other; 1 = none do."""
        ...

    def match_several(self, pairs: Sequence[tuple[Features, Features]]) -> list[Matches]:
        """Match each query with its reference. Raises as :meth:`match`."""
        ...


class MutualNearestNeighbour:
    """Pairs of features that are each other's nearest by cosine.

    Args:
        min_cosine: pairs less alike than this are dropped.
        ratio: Lowe's test on descriptor distance, both ways: the second nearest must be farther
            by 1 / ratio. None makes no such test.

    Raises:
        InvalidParameterError: a value out of bounds.
    """

    name = "mutual_nearest_neighbour"
    batch = 1

    def __init__(self, min_cosine: float = 0.82, ratio: float | None = None) -> None:
        if not -1.0 <= min_cosine <= 1.0:
            raise InvalidParameterError("min_cosine", min_cosine, "in -1..1")
        if ratio is not None and not 0.0 < ratio <= 1.0:
            raise InvalidParameterError("ratio", ratio, "in 0..1, not 0")
        self.min_cosine = min_cosine
        self.ratio = ratio

    def match_some(
        self, query: Features, reference: Features, rows: npt.NDArray[np.integer]
    ) -> Matches:
        """Match some of the query's features: the pairs that :meth:`match` finds for them.

        Args:
            rows: (R,) into ``query``, ascending.

        Raises:
            InputMismatchError: the descriptors come from different networks.
        """
        refuse_different_networks(query, reference)
        if len(rows) == 0 or reference.count == 0:
            return Matches.none()
        there = query.descriptors[rows] @ reference.descriptors.T
        best = there.argmax(axis=1)
        value = np.take_along_axis(there, best[:, None], axis=1)[:, 0]
        keep = value >= self.min_cosine
        if self.ratio is not None:
            keep &= self._distinct(there, value)
        rows, best, value = rows[keep], best[keep], value[keep]
        back = reference.descriptors[best] @ query.descriptors.T
        keep = back.argmax(axis=1) == rows
        if self.ratio is not None:
            keep &= self._distinct(back, back.max(axis=1))
        kept = np.clip(value[keep], 0.0, 1.0)
        return Matches.between(query, reference, rows[keep], best[keep], kept)

    def match_several(self, pairs: Sequence[tuple[Features, Features]]) -> list[Matches]:
        """Match each query with its reference. Raises as :meth:`match`."""
        return [self.match(query, reference) for query, reference in pairs]

    def match(self, query: Features, reference: Features) -> Matches:
        """Match two sets of features.

        Raises:
            InputMismatchError: the descriptors come from different networks.
        """
        refuse_different_networks(query, reference)
        if query.count == 0 or reference.count == 0:
            return Matches.none()
        cosine = query.descriptors @ reference.descriptors.T
        best = cosine.argmax(axis=1)
        value = np.take_along_axis(cosine, best[:, None], axis=1)[:, 0]
        # A pair is mutual where its value is its column's maximum as well: half the price of a
        # second argmax, which would stride down the columns.
        keep = (value == cosine.max(axis=0)[best]) & (value >= self.min_cosine)
        if self.ratio is not None:
            keep &= self._distinct(cosine, value)
            keep &= self._distinct(np.ascontiguousarray(cosine.T), cosine.max(axis=0))[best]
        q = np.flatnonzero(keep)
        # Two rows of exactly the same value can claim one column: the first, better scored, wins.
        _, first = np.unique(best[q], return_index=True)
        q = q[np.sort(first)]
        return Matches.between(query, reference, q, best[q], np.clip(value[q], 0.0, 1.0))

    def _distinct(self, cosine: FloatArray, best: FloatArray) -> npt.NDArray[np.bool_]:
        """Compare each row's best with its second best, as squared distances of unit vectors."""
        assert self.ratio is not None
        if cosine.shape[1] < 2:
            return np.ones(len(cosine), np.bool_)
        second = np.partition(cosine, -2, axis=1)[:, -2]
        passed: npt.NDArray[np.bool_] = (1.0 - best) <= self.ratio**2 * (1.0 - second)
        return passed


class EngineMatcher:
    """Runs a matcher engine, such as LighterGlue.

    Sets larger than the engine's K lose their lowest scored features; smaller ones are padded.

    Args:
        runtime: the runtime that made ``handle``.
        handle: a loaded matcher engine, see ``runtimes.contract``.

    Attributes:
        batch: B, pairs of sets that one forward pass takes.
    """

    def __init__(self, runtime: InferenceRuntime, handle: EngineHandle) -> None:
        self._runtime = runtime
        self._handle = handle
        self.name = handle.entry.manifest.model
        self.batch = handle.entry.config.batch
        self._joint = bool(handle.entry.manifest.weights_sha256)  # without weights: no attention
        self._specs = handle.inputs
        self._outputs = OutputCheck(handle)

    def match(self, query: Features, reference: Features) -> Matches:
        """Match two sets of features.

        Raises:
            InputMismatchError: descriptors from different networks, or of another length than the
                engine takes.
            InvalidOutputError: the engine's answer is not what its specification says.
            InferenceError, DeviceOutOfMemoryError, InvalidHandleError: from the runtime.
        """
        return self.match_several([(query, reference)])[0]

    def match_several(self, pairs: Sequence[tuple[Features, Features]]) -> list[Matches]:
        """Match each query with its reference, as many pairs at a time as the engine takes.

        Raises:
            InputMismatchError, InvalidOutputError, InferenceError, DeviceOutOfMemoryError,
            InvalidHandleError: as :meth:`match`.
        """
        for query, reference in pairs:
            refuse_different_networks(query, reference)
        found = [Matches.none() for _ in pairs]
        full = [i for i, (query, reference) in enumerate(pairs) if query.count and reference.count]
        for first in range(0, len(full), self.batch):
            now = full[first : first + self.batch]
            for index, matches in zip(now, self._infer([pairs[i] for i in now]), strict=True):
                found[index] = matches
        return found

    def _infer(self, pairs: Sequence[tuple[Features, Features]]) -> list[Matches]:
        """Run one forward pass; places of the engine that no pair takes hold empty sets."""
        tensors = {spec.name: spec.zeros() for spec in self._specs}
        places = [tensors]
        if self.batch > 1:
            places = [{name: t[i] for name, t in tensors.items()} for i in range(self.batch)]
        counts = [
            (self._fill(place, query, "0"), self._fill(place, reference, "1"))
            for place, (query, reference) in zip(places, pairs, strict=False)
        ]
        with self._handle.running():
            outputs = self._runtime.infer(self._handle, tensors)
        answers = self._outputs.each(outputs)
        return [
            self._matches(query, reference, *count, answer)
            for (query, reference), count, answer in zip(pairs, counts, answers, strict=False)
        ]

    def _matches(
        self, query: Features, reference: Features, count0: int, count1: int, answer: Tensors
    ) -> Matches:
        self._outputs.matches(answer, count0, count1)
        partner, scores = answer["matches0"][:count0], answer["scores0"]
        q = np.flatnonzero(partner >= 0)
        # Two rows may claim one partner where their values are equal: the better scored wins.
        q = q[np.argsort(-scores[q], kind="stable")]
        q = np.sort(q[np.unique(partner[q], return_index=True)[1]])
        kept = np.clip(scores[q], 0.0, 1.0)
        return Matches.between(query, reference, q, partner[q], kept, self._joint)

    def _fill(self, place: Tensors, features: Features, side: str) -> int:
        """Put a set among the engine's inputs, all zero, and return how many of it they hold."""
        keypoints, descriptors = place[f"keypoints{side}"], place[f"descriptors{side}"]
        if features.descriptors.shape[1] != descriptors.shape[1]:
            raise InputMismatchError(
                f"matcher '{self.name}' takes descriptors of {descriptors.shape[1]} values, "
                f"'{features.model}' gives {features.descriptors.shape[1]}: use a matcher made "
                "for this extractor"
            )
        count = min(features.count, len(keypoints))
        keypoints[:count] = features.keypoints[:count]
        descriptors[:count] = features.descriptors[:count]
        place[f"count{side}"][:] = count
        place[f"size{side}"][:] = features.width, features.height
        return count


def _both(
    a: npt.NDArray[np.bool_] | None, b: npt.NDArray[np.bool_] | None
) -> npt.NDArray[np.bool_] | None:
    return b if a is None else a if b is None else a & b


def refuse_different_networks(query: Features, reference: Features) -> None:
    """Refuse to compare descriptors of different networks or weights.

    Raises:
        InputMismatchError: the two were not made by one network.
    """
    if (query.model, query.model_sha256) != (reference.model, reference.model_sha256):
        raise InputMismatchError(
            f"descriptors of '{query.model}' ({query.model_sha256[:12]}) and '{reference.model}' "
            f"({reference.model_sha256[:12]}) cannot be compared: extract both with one network"
        )

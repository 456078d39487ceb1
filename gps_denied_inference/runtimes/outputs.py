"""Checks an engine's answer against what ``runtimes.contract`` lays down, before it is used.

A driver fault, a half-precision overflow or a runtime of another package may answer with anything:
NaN descriptors, arrays whose sizes do not agree, a count outside 0..K. Each check is one pass over
the rows in use.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gps_denied_inference.errors import InvalidOutputError
from gps_denied_inference.runtimes.contract import EngineHandle, TensorSpec
from gps_denied_inference.runtimes.specs import engine_tensors

NORM_TOLERANCE = 0.05
"""Farthest that a descriptor's squared length may lie above 1; half precision errs less."""
BORDER = 1.0
"""px that a keypoint may lie outside the centres of the outermost pixels, by refinement."""


class OutputCheck:
    """The specification of one engine's outputs, ready to be held against its answers.

    Args:
        handle: a loaded extractor or matcher.
    """

    def __init__(self, handle: EngineHandle) -> None:
        entry = handle.entry
        self._name = f"{entry.model.name} on {handle.readback.runtime}"
        tensors = engine_tensors(entry.model, entry.config)
        self._specs: tuple[TensorSpec, ...] = handle.outputs if tensors is None else tensors[1]
        self._batch = entry.config.batch
        self._size = np.array([entry.config.width, entry.config.height], np.float32)

    def each(self, outputs: Mapping[str, npt.NDArray[Any]]) -> list[dict[str, npt.NDArray[Any]]]:
        """Return an answer image by image, or pair by pair of sets.

        Raises:
            InvalidOutputError: a tensor is missing or of another shape or type.
        """
        self._tensors(outputs)
        if self._batch == 1:
            return [dict(outputs)]
        names = [spec.name for spec in self._specs]
        return [{name: outputs[name][i] for name in names} for i in range(self._batch)]

    def features(self, outputs: Mapping[str, npt.NDArray[Any]]) -> int:
        """Check the answer to one image, of :meth:`each`, and return how many rows are in use.

        Raises:
            InvalidOutputError: ``count`` is not in 0..K; in the rows in use a value is not finite,
                a descriptor is longer than 1, or a keypoint lies outside the image.
        """
        count = int(outputs["count"][0])
        most = len(outputs["scores"])
        if not 0 <= count <= most:
            raise self._error(f"count {count} is not in 0..{most}")
        points = outputs["keypoints"][:count]
        # Comparisons with NaN are false: one pass finds what is not finite and what is outside.
        if not ((points >= -BORDER) & (points <= self._size - 1.0 + BORDER)).all():
            raise self._error("keypoints that are not finite or lie outside the image")
        if not np.isfinite(outputs["scores"][:count]).all():
            raise self._error("scores that are not finite")
        rows = outputs["descriptors"][:count]
        with np.errstate(over="ignore", invalid="ignore"):
            squared = np.einsum("ij,ij->i", rows, rows)
        if not (squared <= 1.0 + NORM_TOLERANCE).all():
            raise self._error("descriptors that are not finite or not of unit length")
        return count

    def matches(self, outputs: Mapping[str, npt.NDArray[Any]], count0: int, count1: int) -> None:
        """Check the answer to one pair, of :meth:`each`.

        Args:
            outputs: the answer.
            count0, count1: features of the one image and the other.

        Raises:
            InvalidOutputError: a row in use names no feature of the other image (and is not -1),
                or its score is not in 0..1.
        """
        partner = outputs["matches0"][:count0]
        if not ((partner >= -1) & (partner < count1)).all():
            raise self._error(f"matches0 outside -1..{count1 - 1}")
        scores = outputs["scores0"][:count0][partner >= 0]
        if not ((scores >= 0.0) & (scores <= 1.0 + 1e-3)).all():
            raise self._error("scores0 that are not in 0..1")

    def _tensors(self, outputs: Mapping[str, npt.NDArray[Any]]) -> None:
        for spec in self._specs:
            value = outputs.get(spec.name)
            if not isinstance(value, np.ndarray):
                raise self._error(f"no array '{spec.name}'")
            if value.shape != spec.shape or value.dtype.name != spec.dtype:
                raise self._error(
                    f"'{spec.name}' of {value.dtype} {value.shape} instead of "
                    f"{spec.dtype} {spec.shape}"
                )

    def _error(self, what: str) -> InvalidOutputError:
        return InvalidOutputError(
            f"{self._name} answered with {what}: nothing of this answer is used; if it goes on, "
            "build the engine anew ('gdi compile --force') or choose another runtime or precision"
        )

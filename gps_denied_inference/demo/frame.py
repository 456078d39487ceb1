"""A frame, and the protocol behind which folders, videos, bags and simulated flights look alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from gps_denied_inference.errors import FrameError

SourceKind = Literal["simulated flight", "folder", "image", "video", "bag"]


@dataclass(frozen=True)
class Frame:
    """One image of a source.

    Attributes:
        index: 0, 1, 2, ... in the source's order.
        stamp_ns: ns, time of exposure; strictly rising within a source.
        image: uint8, (H, W) mono or (H, W, 3) RGB.
        name: what to call it in messages, e.g. the file's name.
    """

    index: int
    stamp_ns: int
    image: npt.NDArray[np.uint8]
    name: str


class FrameSource(Protocol):
    """Yields frames; iterating twice gives the same frames again.

    Attributes:
        kind: what the frames come from.
        name: what was asked for, e.g. the folder.
        note: how the frames were changed on their way, or empty.
        notes: what the source lacks, and what recovers it.
        refused: images that the last iteration left out, by name, with the reason.
    """

    kind: SourceKind
    name: str
    note: str
    notes: list[str]
    refused: dict[str, FrameError]

    def __iter__(self) -> Iterator[Frame]: ...

    def move(
        self, start: int, end: int, points: npt.NDArray[np.floating]
    ) -> npt.NDArray[np.float64] | None:
        """Return where points (N, 2) px of frame ``start`` truly are in frame ``end``.

        None where the true motion is not known. Pixel centres are at whole numbers.
        """
        ...

    def surfaces(self, index: int, points: npt.NDArray[np.floating]) -> npt.NDArray[np.intp] | None:
        """Tell what lies at points (N, 2) px of a frame: 0 is the ground, others rise above it.

        None where that is not known.
        """
        ...

"""An image in the engine's size with its aspect ratio kept: scaled, top left, the rest padded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

MARGIN = 8
"""px of what the network sees: keypoints nearer than this to the padding are of its edge."""


@dataclass(frozen=True)
class Letterbox:
    """Where an image lies in the engine's input. Make it with :meth:`fit`.

    Attributes:
        received: (width, height) px, of the image as it was received.
        content: (width, height) px, of the image as the network sees it.
        engine: (width, height) px, of the engine's input.
    """

    received: tuple[int, int]
    content: tuple[int, int]
    engine: tuple[int, int]

    @classmethod
    def fit(
        cls, received: tuple[int, int], engine: tuple[int, int], scale: float | None = None
    ) -> Letterbox:
        """Place an image of size ``received`` (width, height) px.

        Args:
            scale: px that the network sees per px received; None = as large as the engine takes.
                One larger than that is cut down to it.
        """
        largest = min(engine[0] / received[0], engine[1] / received[1])
        factor = largest if scale is None else min(scale, largest)
        width, height = (
            max(1, min(room, round(size * factor)))
            for size, room in zip(received, engine, strict=True)
        )
        return cls(received, (width, height), engine)

    @property
    def scale(self) -> float:
        """Return px received per px seen, the greater of both directions."""
        return max(self.received[0] / self.content[0], self.received[1] / self.content[1])

    def resize(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return the image, uint8 (H, W) or (H, W, 3), in the size of ``content``."""
        if self.content == self.received:
            return image
        shrinks = self.content[0] * self.content[1] < self.received[0] * self.received[1]
        # Area averaging keeps a shrunk image free of aliases, which pass for corners.
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(image, self.content, interpolation=method), np.uint8)

    def apply(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return the image in the size of ``engine``.

        The padding repeats the image's last pixels: no edge is made, and the network's
        normalisation by mean and variance sees about the image's own.
        """
        seen: npt.NDArray[Any] = self.resize(image)
        right, below = self.engine[0] - self.content[0], self.engine[1] - self.content[1]
        if right or below:
            seen = cv2.copyMakeBorder(seen, 0, below, 0, right, cv2.BORDER_REPLICATE)
        return np.asarray(seen, np.uint8)

    def outside_padding(self, points: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_] | None:
        """Tell which points (N, 2), px of the engine's input, are the image's; None = all."""
        keep: npt.NDArray[np.bool_] | None = None
        for axis in (0, 1):
            if self.content[axis] < self.engine[axis]:
                inside = points[:, axis] <= self.content[axis] - 1 - MARGIN
                keep = inside if keep is None else keep & inside
        return keep

    def to_received(self, points: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Bring points (N, 2) from px of the engine's input to px of the received image."""
        if self.content == self.received:
            return points
        # cv2.resize aligns pixel edges: x of the small image lies at (x + 0.5) * s - 0.5.
        factor = np.array(self.received, np.float32) / np.array(self.content, np.float32)
        return np.asarray((points + np.float32(0.5)) * factor - np.float32(0.5), np.float32)

"""How well exposed and how sharp one image is: why corners are few and tracks end.

Blur is read off the structure function, the mean square difference between pixels a distance d
apart. What a scene shows makes it grow as a power of d: about the first where an image is sharp,
the second where it is smooth over that distance. White noise adds the same at every distance, so
between distances it cancels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import cv2
import numpy as np
import numpy.typing as npt

LINES = 60
"""Lines along and down an image that are looked at."""
LAG = 2
"""px; pixels are compared over this distance, twice and four times it. Demosaicing and JPEG tie
neighbours together, so nothing shorter is looked at."""
LEAST_CHANGE = 0.05
LEAST_GREY_LEVELS = 0.5
"""Share, and grey levels squared, by which the mean square difference must grow with the distance;
noise errs by less."""
DARK_LEVEL = 8
BRIGHT_LEVEL = 247
"""Grey levels of 0..255 up to which, and from which on, a pixel shows nothing."""

DARK_MEAN = 0.06
DARK_SHARE = 0.9
BRIGHT_SHARE = 0.6
BLURRED = 0.6
"""From there on an image is called dark, overexposed or blurred. Sharp aerial images have a blur of
0.1 to 0.4, the same after a Gaussian of 2 px or motion over 9 px one of 0.6 to 0.8."""


@dataclass(frozen=True)
class FrameQuality:
    """Exposure and sharpness of one image, or their medians over several.

    Attributes:
        brightness: mean grey level, 0 (black) to 1 (white).
        dark_share, bright_share: share of the pixels that are nearly black, nearly white.
        blur: 0 (sharp) to 1 (smooth over 8 px of what the network sees), of the blurrier axis; NaN
            where the image shows nothing, or nothing but noise.
    """

    brightness: float
    dark_share: float
    bright_share: float
    blur: float

    @classmethod
    def of(cls, image: npt.NDArray[np.uint8], width: int, height: int) -> FrameQuality:
        """Measure an image.

        Args:
            image: uint8 (H, W) or (H, W, 3) RGB.
            width, height: px, what the network sees of it; a smaller image is taken as it is.
        """
        grey = image if image.ndim == 2 else image[:, :, 1]
        rows, columns = grey.shape
        along = np.ascontiguousarray(grey[:: -(-rows // LINES)])
        down = np.ascontiguousarray(grey[:, :: -(-columns // LINES)].T)
        counts = cv2.calcHist([along], [0], None, [256], [0.0, 256.0]).ravel() / along.size
        return cls(
            brightness=float(counts @ np.arange(256.0)) / 255.0,
            dark_share=float(counts[: DARK_LEVEL + 1].sum()),
            bright_share=float(counts[BRIGHT_LEVEL:].sum()),
            blur=float(np.fmax(_blur(along, width), _blur(down, height))),
        )

    @classmethod
    def median(cls, several: Sequence[FrameQuality]) -> FrameQuality:
        """Return the median of each value, NaN where there is none."""
        if not several:
            return cls(np.nan, np.nan, np.nan, np.nan)
        values = np.array([astuple(one) for one in several])
        return cls(*(_median(column) for column in values.T))

    @property
    def fault(self) -> str:
        """``"dark"``, ``"overexposed"``, ``"blurred"``, or empty where there is none."""
        if self.brightness < DARK_MEAN or self.dark_share > DARK_SHARE:
            return "dark"
        if self.bright_share > BRIGHT_SHARE:
            return "overexposed"
        return "blurred" if self.blur > BLURRED else ""


def _blur(lines: npt.NDArray[np.uint8], width: int) -> float:
    """Return the blur along rows (N, W), brought to at most ``width`` px; NaN = nothing varies."""
    if lines.shape[1] > width:
        lines = np.asarray(
            cv2.resize(lines, (width, lines.shape[0]), interpolation=cv2.INTER_AREA), np.uint8
        )
    if lines.shape[1] <= 4 * LAG:
        return float("nan")
    near, middle, far = (_difference(lines, lag) for lag in (LAG, 2 * LAG, 4 * LAG))
    if far - near <= max(LEAST_CHANGE * near, LEAST_GREY_LEVELS):
        return float("nan")
    ratio = max(far - middle, 1e-9) / max(middle - near, 1e-9)
    return min(max(0.5 * float(np.log2(ratio)), 0.0), 1.0)


def _difference(lines: npt.NDArray[np.uint8], lag: int) -> float:
    """Return the mean square difference between pixels of a row ``lag`` px apart."""
    first, second = lines[:, lag:], lines[:, :-lag]
    return float(cv2.norm(first, second, cv2.NORM_L2SQR)) / first.size


def _median(values: npt.NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else float("nan")

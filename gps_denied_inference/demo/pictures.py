"""The demo's two pictures: features on a frame, and matches between two frames."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from gps_denied_inference.demo.score import Pair
from gps_denied_inference.errors import StorageError

Image = npt.NDArray[np.uint8]

_AGREES = (80, 220, 60)  # BGR
_DISAGREES = (60, 60, 230)
_GAP = 12  # px between two frames side by side
_MOST_LINES = 250
_WIDEST = 960  # px, of one frame in a picture
_SUBPIXEL_BITS = 4


def _canvas(image: Image) -> tuple[Image, float]:
    """Return a grey, darker BGR copy of a mono or RGB frame, for marks to stand out, and its scale.

    Frames wider than a picture should be are made smaller.
    """
    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    scale = min(1.0, _WIDEST / image.shape[1])
    if scale < 1.0:
        size = (_WIDEST, max(1, round(image.shape[0] * scale)))
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR) * 0.8, np.uint8), scale


def _fixed(point: npt.NDArray[np.float32], scale: float, shift: float = 0.0) -> tuple[int, int]:
    """Return a point of a frame, in px, as OpenCV's fixed-point coordinates on the canvas."""
    x, y = (point + 0.5) * scale - 0.5  # whole numbers are the centres of pixels
    one = 1 << _SUBPIXEL_BITS
    return round(float(x + shift) * one), round(float(y) * one)


def draw_features(image: Image, pair: Pair) -> Image:
    """Return the pair's first frame with its features, bright ones scoring higher; BGR."""
    canvas, scale = _canvas(image)
    features = pair.first
    if features.count == 0:
        return canvas
    order = np.argsort(np.argsort(features.scores))
    shades = (255 * order / max(features.count - 1, 1)).astype(np.uint8)
    colours = cv2.applyColorMap(shades[:, None], cv2.COLORMAP_VIRIDIS)[:, 0]
    for point, colour in zip(features.keypoints[::-1], colours[::-1], strict=True):
        cv2.circle(
            canvas,
            _fixed(point, scale),
            3 << _SUBPIXEL_BITS,
            tuple(int(part) for part in colour),
            1,
            cv2.LINE_AA,
            _SUBPIXEL_BITS,
        )
    return canvas


def draw_matches(first: Image, second: Image, pair: Pair) -> Image:
    """Return both frames joined by up to 250 matches, green if they agree, else red; BGR."""
    (left, scale), (right, scale_right) = _canvas(first), _canvas(second)
    height = max(left.shape[0], right.shape[0])
    offset = left.shape[1] + _GAP
    canvas = np.full((height, offset + right.shape[1], 3), 255, np.uint8)
    canvas[: left.shape[0], : left.shape[1]] = left
    canvas[: right.shape[0], offset:] = right
    count = len(pair.agrees)
    chosen = np.unique(np.linspace(0, count - 1, min(count, _MOST_LINES)).astype(int))
    # Those that disagree come last, so that they are not hidden.
    for index in sorted(chosen, key=lambda i: not pair.agrees[i]) if count else ():
        colour = _AGREES if pair.agrees[index] else _DISAGREES
        start = _fixed(pair.matches.query_points[index], scale)
        end = _fixed(pair.matches.reference_points[index], scale_right, offset)
        cv2.line(canvas, start, end, colour, 1, cv2.LINE_AA, _SUBPIXEL_BITS)
    return canvas


def encode_png(image: Image) -> bytes:
    """Return a BGR image as PNG."""
    return bytes(cv2.imencode(".png", image)[1].tobytes())


def write_picture(path: Path, png: bytes) -> None:
    """Write a picture.

    Raises:
        StorageError: the folder is not writable, or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error

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
_SUBPIXEL_BITS = 4


def _canvas(image: Image) -> Image:
    """Return a grey, darker BGR copy of a mono or RGB frame, so that marks stand out."""
    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR) * 0.8, np.uint8)


def _fixed(point: npt.NDArray[np.float32]) -> tuple[int, int]:
    """Return a point in px as OpenCV's fixed-point coordinates."""
    x, y = np.rint(point * (1 << _SUBPIXEL_BITS)).astype(int)
    return int(x), int(y)


def draw_features(image: Image, pair: Pair) -> Image:
    """Return the pair's first frame with its features, bright ones scoring higher; BGR."""
    canvas = _canvas(image)
    features = pair.first
    if features.count == 0:
        return canvas
    order = np.argsort(np.argsort(features.scores))
    shades = (255 * order / max(features.count - 1, 1)).astype(np.uint8)
    colours = cv2.applyColorMap(shades[:, None], cv2.COLORMAP_VIRIDIS)[:, 0]
    for point, colour in zip(features.keypoints[::-1], colours[::-1], strict=True):
        cv2.circle(
            canvas,
            _fixed(point),
            3 << _SUBPIXEL_BITS,
            tuple(int(part) for part in colour),
            1,
            cv2.LINE_AA,
            _SUBPIXEL_BITS,
        )
    return canvas


def draw_matches(first: Image, second: Image, pair: Pair) -> Image:
    """Return both frames joined by up to 250 matches, green if they agree, else red; BGR."""
    left, right = _canvas(first), _canvas(second)
    height = max(left.shape[0], right.shape[0])
    offset = left.shape[1] + _GAP
    canvas = np.full((height, offset + right.shape[1], 3), 255, np.uint8)
    canvas[: left.shape[0], : left.shape[1]] = left
    canvas[: right.shape[0], offset:] = right
    count = len(pair.agrees)
    chosen = np.unique(np.linspace(0, count - 1, min(count, _MOST_LINES)).astype(int))
    shift = np.array([offset, 0], np.float32)
    # Those that disagree come last, so that they are not hidden.
    for index in sorted(chosen, key=lambda i: not pair.agrees[i]) if count else ():
        colour = _AGREES if pair.agrees[index] else _DISAGREES
        start = _fixed(pair.matches.query_points[index])
        end = _fixed(pair.matches.reference_points[index] + shift)
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

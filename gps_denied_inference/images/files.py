"""Image files on disk to numpy, by the rules that frames of topics and bags follow."""

from __future__ import annotations

from pathlib import Path

from gps_denied_inference.errors import FrameError, TooLargeError
from gps_denied_inference.images.choices import Color, DepthScaling
from gps_denied_inference.images.compressed import decode_image
from gps_denied_inference.images.limits import MAX_PIXELS
from gps_denied_inference.images.raw import ByteArray
from gps_denied_inference.storage.files import read_regular

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".jpg", ".jpeg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)

_PIXEL_BYTES = 8  # four channels of 16 bits
_HEADER_BYTES = 1 << 24


def read_image(
    path: Path,
    color: Color = "mono",
    depth_scaling: DepthScaling = "percentile",
    max_pixels: int = MAX_PIXELS,
) -> ByteArray:
    """Read and decode an image file as :func:`~.compressed.decode_image` does.

    Args:
        path: a regular file; its content decides what it is, not its name.
        color: ``"mono"`` or ``"rgb"``.
        depth_scaling: how 16 bits become 8, one of ``DEPTH_SCALINGS``.
        max_pixels: px, most that the image may have.

    Returns:
        (H, W) or (H, W, 3) RGB, uint8.

    Raises:
        FrameError: the content cannot be used; the message names the file.
        StorageError: no such file, no regular file, or not readable.
    """
    data = _read(path, max_pixels * _PIXEL_BYTES + _HEADER_BYTES)
    try:
        return decode_image(data, color, depth_scaling, max_pixels)
    except FrameError as error:
        raise FrameError(f"image file {path}: {error}", error.reason) from error


def _read(path: Path, most: int) -> bytes:
    try:
        return read_regular(path, most)
    except TooLargeError as error:
        raise FrameError(f"{error}: max_image_pixels bounds it", "too_large") from error

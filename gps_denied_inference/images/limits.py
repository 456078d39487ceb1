"""How large an image may be."""

from __future__ import annotations

from gps_denied_inference.errors import FrameError

MAX_PIXELS = 25_000_000
"""px, most that an image may have unless its caller says otherwise: a 24-megapixel camera's."""


def check_pixel_count(width: int, height: int, max_pixels: int = MAX_PIXELS) -> None:
    """Refuse an image without pixels, or with too many to be one camera's frame.

    Raises:
        FrameError: ``zero_size`` or ``too_large``.
    """
    if width <= 0 or height <= 0:
        raise FrameError(f"image of {width} x {height} px has no pixels", "zero_size")
    if width * height > max_pixels:
        raise FrameError(
            f"image of {width} x {height} px is refused: max_image_pixels is {max_pixels}",
            "too_large",
        )

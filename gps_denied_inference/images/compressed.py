"""Image files in memory to numpy: frames of ``sensor_msgs/CompressedImage`` and files alike.

The header is read before anything is decoded (:mod:`~gps_denied_inference.images.headers`), so that
a few kilobytes that unpack to gigabytes, or take minutes, are refused unopened. The content
decides, not the ``format`` string: that one names the transport's pixel format (``"bgr8; jpeg
compressed bgr8"``), is often just ``"jpeg"`` and is sometimes wrong; it is read only to refuse
``compressedDepth``, which is no image file.

* EXIF and TIFF orientation is never obeyed: pixels stay where ``camera_info`` describes them.
* What libjpeg only warns of (bad codes, bytes too many or too few in a scan) is ``corrupt``: it
  fills the rest with grey, and features on that would be invented. Nothing goes to stderr.
* 16 bits become 8 by the rule that raw images follow.
"""

from __future__ import annotations

from typing import Any, Protocol

import cv2
import numpy as np
import simplejpeg

from gps_denied_inference.errors import FrameError
from gps_denied_inference.images.choices import Color, DepthScaling
from gps_denied_inference.images.headers import ImageFile, read_header
from gps_denied_inference.images.limits import MAX_PIXELS
from gps_denied_inference.images.raw import (
    ByteArray,
    scale_to_8_bit,
)


class CompressedImageMessage(Protocol):
    """The fields of ``sensor_msgs/CompressedImage`` that are read."""

    format: str
    data: Any


def compressed_to_array(
    message: CompressedImageMessage,
    color: Color = "mono",
    depth_scaling: DepthScaling = "percentile",
    max_pixels: int = MAX_PIXELS,
) -> ByteArray:
    """Decode a compressed frame as :func:`decode_image` does.

    Raises:
        FrameError: ``corrupt``, ``zero_size``, ``too_large`` or ``unknown_encoding``.
    """
    if "compressedDepth" in message.format:
        raise FrameError(f"format '{message.format}' is no image file", "unknown_encoding")
    return decode_image(message.data, color, depth_scaling, max_pixels)


def decode_image(
    data: Any,
    color: Color = "mono",
    depth_scaling: DepthScaling = "percentile",
    max_pixels: int = MAX_PIXELS,
) -> ByteArray:
    """Decode the content of an image file.

    Mono from a colour JPEG is its own Y channel; from any other colour image, BT.601 luma.

    Args:
        data: the file's bytes, any buffer.
        color: ``"mono"`` or ``"rgb"``.
        depth_scaling: how 16 bits become 8, one of ``DEPTH_SCALINGS``.
        max_pixels: px, most that the image may have.

    Returns:
        (H, W) or (H, W, 3) RGB, uint8.

    Raises:
        FrameError: ``corrupt``, ``zero_size``, ``too_large`` or ``unknown_encoding``.
    """
    if color not in ("mono", "rgb"):
        raise ValueError(f"color '{color}': known are mono, rgb")
    try:
        buffer = memoryview(data).cast("B")
    except TypeError as error:
        raise FrameError(f"image data of type {type(data).__name__} is no buffer") from error
    image = read_header(buffer, max_pixels)
    pixels = _jpeg(image, color) if image.kind == "JPEG" else _other(image, color)
    if pixels.shape[:2] != (image.height, image.width):
        raise FrameError(
            f"{image.kind} decodes to {pixels.shape[1]} x {pixels.shape[0]} px, not to the "
            f"{image.width} x {image.height} px of its header",
            "corrupt",
        )
    if pixels.dtype == np.uint16:
        pixels = scale_to_8_bit(pixels, depth_scaling)
    if pixels.dtype != np.uint8:
        raise FrameError(f"{image.kind} of {pixels.dtype} samples", "unknown_encoding")
    if color == "rgb" and image.kind != "JPEG":
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    decoded: ByteArray = pixels
    return decoded


def _jpeg(image: ImageFile, color: Color) -> Any:
    try:
        if color == "mono":
            return simplejpeg.decode_jpeg(image.data, "GRAY", strict=True)[..., 0]
        return simplejpeg.decode_jpeg(image.data, "RGB", strict=True)
    except ValueError as error:
        raise FrameError(f"JPEG does not decode: {error}", "corrupt") from error


def _other(image: ImageFile, color: Color) -> Any:
    """Decode with OpenCV: mono, or BGR; 8 or 16 bits."""
    kind = cv2.IMREAD_GRAYSCALE if color == "mono" else cv2.IMREAD_COLOR
    flags = kind | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(image.data, np.uint8), flags)
    except cv2.error as error:
        raise FrameError(f"{image.kind} does not decode: {error}", "corrupt") from error
    if pixels is None:
        raise FrameError(
            f"{image.kind} of {image.width} x {image.height} px does not decode", "corrupt"
        )
    return pixels

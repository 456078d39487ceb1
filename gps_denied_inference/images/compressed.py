"""``sensor_msgs/CompressedImage`` (JPEG and PNG) to numpy.

The size is read from the file's own header before anything is decoded, so that a few kilobytes
that unpack to gigabytes are refused unopened. The content decides, not the ``format`` string: that
one names the transport's pixel format (``"bgr8; jpeg compressed bgr8"``), is often just ``"jpeg"``
and is sometimes wrong; it is read only to refuse ``compressedDepth``, which is no image file.
EXIF orientation is ignored: pixels stay where ``camera_info`` describes them.
"""

from __future__ import annotations

import struct
from typing import Any, Protocol

import cv2
import numpy as np

from gps_denied_inference.errors import FrameError
from gps_denied_inference.images.raw import (
    MAX_PIXELS,
    ByteArray,
    Color,
    DepthScaling,
    check_pixel_count,
    scale_to_8_bit,
)

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # DHT, JPG and DAC are no frame headers
_BARE = frozenset((0x01, *range(0xD0, 0xD9)))  # markers without a length
_SOS, _EOI = 0xDA, 0xD9


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
    """Decode a JPEG or PNG frame.

    Mono from a colour JPEG is its own Y channel; from a colour PNG, BT.601 luma.

    Returns:
        (H, W) or (H, W, 3) RGB, uint8; 16-bit PNGs are scaled by ``depth_scaling``.

    Raises:
        FrameError: ``corrupt``, ``zero_size``, ``too_large`` or ``unknown_encoding``.
    """
    if color not in ("mono", "rgb"):
        raise ValueError(f"color '{color}': known are mono, rgb")
    if "compressedDepth" in message.format:
        raise FrameError(f"format '{message.format}' is no image file", "unknown_encoding")
    data = bytes(message.data)
    width, height = image_file_size(data, message.format)
    check_pixel_count(width, height, max_pixels)
    kind = cv2.IMREAD_GRAYSCALE if color == "mono" else cv2.IMREAD_COLOR
    flags = kind | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise FrameError(f"compressed image does not decode: {error}", "corrupt") from error
    if pixels is None or pixels.shape[:2] != (height, width):
        raise FrameError(
            f"compressed image of {len(data)} bytes ({width} x {height} px) does not decode",
            "corrupt",
        )
    if pixels.dtype == np.uint16:
        pixels = scale_to_8_bit(pixels, depth_scaling)
    if color == "rgb":
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    decoded: ByteArray = pixels
    return decoded


def image_file_size(data: bytes, name: str = "") -> tuple[int, int]:
    """Read (width, height) in px from a JPEG or PNG header, and see that the file has its end.

    Raises:
        FrameError: ``unknown_encoding`` for other file types, ``corrupt`` for broken or truncated
            files.
    """
    if data.startswith(_PNG):
        return _png_size(data)
    if data.startswith(_JPEG):
        return _jpeg_size(data)
    if not data:
        raise FrameError("compressed image carries no data", "zero_size")
    raise FrameError(
        f"compressed image (format '{name}') is neither JPEG nor PNG: it starts with "
        f"{data[:8].hex(' ')}",
        "unknown_encoding",
    )


def _png_size(data: bytes) -> tuple[int, int]:
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise FrameError("PNG without a complete header", "corrupt")
    if b"IEND" not in data[-64:]:
        raise FrameError(f"PNG of {len(data)} bytes is truncated: it has no end", "corrupt")
    width, height = struct.unpack(">II", data[16:24])
    return int(width), int(height)


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Walk the segments: the frame header holds the size, and an end must follow the scan.

    libjpeg fills what a truncated file lacks with grey and only warns on stderr: features on that
    grey edge would be invented, hence the look for the end marker here.
    """
    size: tuple[int, int] | None = None
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            raise FrameError("JPEG with a broken segment", "corrupt")
        marker = data[position + 1]
        if marker == 0xFF or marker in _BARE:  # padding, or a marker without a body
            position += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack(">H", data[position + 2 : position + 4])
        if marker in _SOF and position + 9 <= len(data):
            height, width = struct.unpack(">HH", data[position + 5 : position + 9])
            size = int(width), int(height)
        if marker == _SOS:
            break
        position += 2 + length
    else:
        raise FrameError(f"JPEG of {len(data)} bytes ends before its image", "corrupt")
    if size is None:
        raise FrameError("JPEG without a frame header", "corrupt")
    # Within a scan 0xFF is always followed by 0x00 or a restart marker: this finds a true end.
    if data.find(bytes((0xFF, _EOI)), position) < 0:
        raise FrameError(f"JPEG of {len(data)} bytes is truncated: it has no end", "corrupt")
    return size

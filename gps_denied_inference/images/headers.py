"""What an image file says of itself, read before a pixel of it is decoded.

Known are JPEG, PNG, TIFF, BMP, WebP and PGM/PPM, told apart by their content. Everything that costs
a decoder time or memory is bounded by what the header says: pixels, channels, bits, and the scans
of a JPEG. Whatever turns, animates or annotates the image is left out of what is handed on, so
that one file gives one raster, as stored: the raster is what ``camera_info`` describes.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from gps_denied_inference.errors import FrameError
from gps_denied_inference.images import tiff
from gps_denied_inference.images.limits import MAX_PIXELS, check_pixel_count

MAX_SCANS = 32
"""A JPEG with more is refused. Encoders write 1 to 12; each costs a pass over the whole image."""

KINDS = ("JPEG", "PNG", "TIFF", "BMP", "WebP", "PGM/PPM")

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_SIGNATURE = b"\xff\xd8\xff"
_PNG_KEPT = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"))
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # DHT, JPG and DAC are no frame headers
_SOF_DECODED = frozenset((0xC0, 0xC1, 0xC2, 0xC9, 0xCA))  # not lossless, not hierarchical
_BARE = frozenset((0x01, *range(0xD0, 0xD9)))  # markers without a length
_SOS, _EOI = 0xDA, 0xD9
_PNM = re.compile(rb"P([2356])(?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)\s")
_PNM_HEADER = 4096  # bytes, longest header with its comments


@dataclass(frozen=True)
class ImageFile:
    """One image file, ready to be decoded.

    Attributes:
        kind: one of :data:`KINDS`.
        width, height: px.
        data: the image alone, without orientation, animation and what follows its end.
    """

    kind: str
    width: int
    height: int
    data: bytes | memoryview


def read_header(data: bytes | memoryview, max_pixels: int = MAX_PIXELS) -> ImageFile:
    """Read and check everything that can be known of an image file without decoding it.

    Args:
        data: the file's content.
        max_pixels: px, most that the image may have.

    Raises:
        FrameError: ``zero_size``, ``too_large``, ``unknown_encoding``, or ``corrupt`` for broken
            and truncated files.
    """
    view = memoryview(data).cast("B")
    if not len(view):
        raise FrameError("image file is empty", "zero_size")
    start = bytes(view[:16])
    reader = _reader(start)
    if reader is None:
        raise FrameError(
            f"image file starts with {start[:8].hex(' ')}: known are {', '.join(KINDS)}",
            "unknown_encoding",
        )
    try:
        return reader(view, max_pixels)
    except (struct.error, IndexError) as error:
        raise FrameError(
            f"image file of {len(view)} bytes ends within its header", "corrupt"
        ) from error


def _reader(start: bytes) -> Callable[[memoryview, int], ImageFile] | None:
    if start.startswith(_JPEG_SIGNATURE):
        return _jpeg
    if start.startswith(_PNG_SIGNATURE):
        return _png
    if start[:4] in tiff.SIGNATURES:
        return _tiff
    if start.startswith(b"BM"):
        return _bmp
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return _webp
    if start[:2] in (b"P2", b"P3", b"P5", b"P6"):
        return _pnm
    return None


def _jpeg(data: memoryview, max_pixels: int) -> ImageFile:
    """Walk the segments up to the first scan, then look for scans and the end."""
    size: tuple[int, int] | None = None
    position = 2
    while True:
        if position + 4 > len(data):
            raise FrameError(f"JPEG of {len(data)} bytes ends before its image", "corrupt")
        if data[position] != 0xFF:
            raise FrameError("JPEG with a broken segment", "corrupt")
        marker = data[position + 1]
        if marker == 0xFF or marker in _BARE:  # padding, or a marker without a body
            position += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        if marker in _SOF:
            if size is not None:
                raise FrameError("JPEG with two frame headers", "corrupt")
            size = _jpeg_frame(data, position, marker, max_pixels)
        if marker == _SOS:
            break
        position += 2 + length
    if size is None:
        raise FrameError("JPEG without a frame header", "corrupt")
    # Within a scan 0xFF is always followed by 0x00 or a restart marker: these find true markers.
    body = bytes(data[position:])
    scans = body.count(bytes((0xFF, _SOS)))
    if scans > MAX_SCANS:
        raise FrameError(
            f"JPEG of {scans} scans is refused: {MAX_SCANS} are the limit", "too_large"
        )
    end = body.find(bytes((0xFF, _EOI)))
    if end < 0:
        raise FrameError(f"JPEG of {len(data)} bytes is truncated: it has no end", "corrupt")
    return ImageFile("JPEG", *size, data[: position + end + 2])


def _jpeg_frame(data: memoryview, at: int, marker: int, max_pixels: int) -> tuple[int, int]:
    bits, height, width, components = struct.unpack_from(">BHHB", data, at + 4)
    check_pixel_count(width, height, max_pixels)
    if marker not in _SOF_DECODED or bits != 8 or components not in (1, 3):
        raise FrameError(
            f"JPEG of process SOF{marker - 0xC0}, {bits} bits and {components} components: known "
            "are baseline and progressive ones of 8 bits, grey or of three colours",
            "unknown_encoding",
        )
    return int(width), int(height)


def _png(data: memoryview, max_pixels: int) -> ImageFile:
    if len(data) < 33 or bytes(data[12:16]) != b"IHDR":
        raise FrameError("PNG without a complete header", "corrupt")
    width, height = struct.unpack_from(">II", data, 16)
    check_pixel_count(width, height, max_pixels)
    kept: list[memoryview] = [data[:8]]
    position, is_whole = 8, True
    while True:
        if position + 12 > len(data):
            raise FrameError(f"PNG of {len(data)} bytes is truncated: it has no end", "corrupt")
        (length,) = struct.unpack_from(">I", data, position)
        end = position + 12 + length
        if end > len(data):
            raise FrameError(f"PNG of {len(data)} bytes is truncated within a chunk", "corrupt")
        kind = bytes(data[position + 4 : position + 8])
        (crc,) = struct.unpack_from(">I", data, end - 4)
        if zlib.crc32(data[position + 4 : end - 4]) != crc:
            raise FrameError(f"PNG with a wrong checksum of chunk {kind!r}", "corrupt")
        if kind in _PNG_KEPT:
            kept.append(data[position:end])
        else:
            is_whole = False
        position = end
        if kind == b"IEND":
            break
    return ImageFile("PNG", width, height, data[:position] if is_whole else b"".join(kept))


def _tiff(data: memoryview, max_pixels: int) -> ImageFile:
    first = tiff.read_first_image(data)
    check_pixel_count(first.width, first.height, max_pixels)
    if first.tile_pixels > max_pixels:
        raise FrameError(
            f"TIFF with tiles of {first.tile_pixels} px is refused: {max_pixels} are the limit",
            "too_large",
        )
    if first.channels > 4 or first.bits not in (1, 2, 4, 8, 16) or first.is_float:
        raise FrameError(
            f"TIFF of {first.channels} channels of {first.bits} bits"
            f"{' (floating point)' if first.is_float else ''}: known are 1 to 4 of 8 or 16 bits",
            "unknown_encoding",
        )
    return ImageFile("TIFF", first.width, first.height, first.data)


def _bmp(data: memoryview, max_pixels: int) -> ImageFile:
    offset, header, width, height = struct.unpack_from("<IIii", data, 10)
    if header < 40:
        raise FrameError(f"BMP with a header of {header} bytes, not 40", "unknown_encoding")
    bits, compression = struct.unpack_from("<HI", data, 28)
    check_pixel_count(width, abs(height), max_pixels)
    rows = (width * bits + 31) // 32 * 4 * abs(height)
    if compression in (0, 3) and offset + rows > len(data):  # neither is run-length coded
        raise FrameError(f"BMP of {len(data)} bytes is truncated", "corrupt")
    return ImageFile("BMP", width, abs(height), data)


def _webp(data: memoryview, max_pixels: int) -> ImageFile:
    (length,) = struct.unpack_from("<I", data, 4)
    if length + 8 > len(data):
        raise FrameError(f"WebP of {len(data)} bytes is truncated", "corrupt")
    kind = bytes(data[12:16])
    if kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    elif kind == b"VP8L":
        (packed,) = struct.unpack_from("<I", data, 21)
        width, height = (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
    elif kind == b"VP8X":
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
        if data[20] & 0x02:
            raise FrameError("WebP is an animation, no image", "unknown_encoding")
    else:
        raise FrameError(f"WebP with an unknown chunk {kind!r}", "corrupt")
    check_pixel_count(width, height, max_pixels)
    return ImageFile("WebP", width, height, data[: length + 8])


def _pnm(data: memoryview, max_pixels: int) -> ImageFile:
    found = _PNM.match(bytes(data[:_PNM_HEADER]))
    if found is None:
        raise FrameError("PGM/PPM without a complete header", "corrupt")
    if max(len(digits) for digits in found.groups()) > 9:
        raise FrameError("PGM/PPM whose header holds an impossible number", "corrupt")
    kind, width, height, most = (int(digits) for digits in found.groups())
    check_pixel_count(width, height, max_pixels)
    channels = 3 if kind in (3, 6) else 1
    # A sample in digits takes at least one of them and a blank between two.
    size = (2 if most > 255 else 1) if kind in (5, 6) else 2
    if found.end() + width * height * channels * size - (kind in (2, 3)) > len(data):
        raise FrameError(f"PGM/PPM of {len(data)} bytes is truncated", "corrupt")
    return ImageFile("PGM/PPM", width, height, data)

"""Small image files that cost a careless decoder minutes or gigabytes, or deceive it."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def encode(extension: str, image: np.ndarray, *options: int) -> bytes:
    """Encode with OpenCV."""
    return cv2.imencode(extension, image, list(options))[1].tobytes()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """One PNG chunk with its checksum."""
    crc = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)


def png(width: int, height: int, bits: int = 8, color_type: int = 0) -> bytes:
    """A whole, valid, black PNG of any size, nearly nothing in bytes."""
    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[color_type]
    row = bytes(1 + width * channels * bits // 8)
    deflate = zlib.compressobj(9)
    rows = b"".join(deflate.compress(row) for _ in range(height)) + deflate.flush()
    chunks = (png_chunk(b"IHDR", header), png_chunk(b"IDAT", rows), png_chunk(b"IEND", b""))
    return PNG_SIGNATURE + b"".join(chunks)


def jpeg_of_many_scans(scans: int, width: int, height: int) -> bytes:
    """A progressive JPEG whose last scan is repeated: 14 bytes each, a pass over the image each."""
    grey = np.full((height, width), 128, np.uint8)
    data = encode(".jpg", grey, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * (scans - data.count(b"\xff\xda")) + b"\xff\xd9"


def jpeg_claiming(data: bytes, width: int, height: int) -> bytes:
    """The same baseline JPEG with another size in its header."""
    frame = data.index(b"\xff\xc0")
    return data[: frame + 5] + struct.pack(">HH", height, width) + data[frame + 9 :]


def turned(data: bytes) -> bytes:
    """The same JPEG with an EXIF tag that asks viewers to turn it by 90 degrees."""
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]


def damaged(data: bytes) -> bytes:
    """The same JPEG without the middle third of its scan, as when a packet was lost."""
    start = data.index(b"\xff\xda") + 14
    third = (len(data) - 2 - start) // 3
    return data[: start + third] + data[start + 2 * third :]

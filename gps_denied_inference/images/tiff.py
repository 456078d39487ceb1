"""The first image of a TIFF file: its size, layout and place, from the tags."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from gps_denied_inference.errors import FrameError

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_WIDTH, _HEIGHT, _BITS, _ORIENTATION, _CHANNELS = 256, 257, 258, 274, 277
_STRIPS, _STRIP_SIZES = 273, 279
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_SIZES = 322, 323, 324, 325
_SAMPLE_FORMAT = 339
_FLOAT = 3
_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}  # of the fields that are read
_MOST_TAGS = 4096
_MOST_VALUES = 1 << 20


@dataclass(frozen=True)
class FirstImage:
    """The first image of a TIFF.

    Attributes:
        width, height: px.
        channels, bits: samples a pixel, and bits of each.
        is_float: samples are floating-point numbers.
        tile_pixels: px of one tile; 0 where the image is stored in strips.
        data: the file, with its orientation tag saying "as stored".
    """

    width: int
    height: int
    channels: int
    bits: int
    is_float: bool
    tile_pixels: int
    data: bytes | memoryview


def read_first_image(data: memoryview) -> FirstImage:
    """Read the first directory of a TIFF or BigTIFF.

    Raises:
        FrameError: ``corrupt``: no size, or strips beyond the file's end.
        struct.error: the file ends within its header.
    """
    order = "<" if data[0] == 0x49 else ">"
    is_big = data[2 if order == "<" else 3] == 43
    (at,) = struct.unpack_from(order + ("Q" if is_big else "I"), data, 8 if is_big else 4)
    (count,) = struct.unpack_from(order + ("Q" if is_big else "H"), data, at)
    if count > _MOST_TAGS:
        raise FrameError(f"TIFF with {count} tags in its first directory", "corrupt")
    at += 8 if is_big else 2
    entry = struct.Struct(order + ("HHQ" if is_big else "HHI"))
    room, step = (8, 20) if is_big else (4, 12)
    tags: dict[int, tuple[int, ...]] = {}
    whole: bytes | memoryview = data
    for index in range(count):
        start = at + step * index
        tag, kind, length = entry.unpack_from(data, start)
        if kind not in _TYPES or not 0 < length <= _MOST_VALUES or tag in tags:
            continue
        values = struct.Struct(f"{order}{length}{_TYPES[kind]}")
        place = start + entry.size
        if values.size > room:
            (place,) = struct.unpack_from(order + ("Q" if is_big else "I"), data, place)
        tags[tag] = values.unpack_from(data, place)
        if tag == _ORIENTATION and tags[tag] != (1,):
            changed = bytearray(whole)
            values.pack_into(changed, place, *([1] * length))
            whole = bytes(changed)
    width, height = _first(tags, _WIDTH, 0), _first(tags, _HEIGHT, 0)
    _check_extent(tags, len(data))
    return FirstImage(
        width=width,
        height=height,
        channels=_first(tags, _CHANNELS, 1),
        bits=max(tags.get(_BITS, (1,))),
        is_float=_first(tags, _SAMPLE_FORMAT, 1) == _FLOAT,
        tile_pixels=_first(tags, _TILE_WIDTH, 0) * _first(tags, _TILE_HEIGHT, 0),
        data=whole,
    )


def _first(tags: dict[int, tuple[int, ...]], tag: int, default: int) -> int:
    return tags.get(tag, (default,))[0]


def _check_extent(tags: dict[int, tuple[int, ...]], length: int) -> None:
    """Every strip or tile must lie within the file."""
    offsets = tags.get(_TILES) or tags.get(_STRIPS)
    sizes = tags.get(_TILE_SIZES) or tags.get(_STRIP_SIZES)
    if not offsets or not sizes or len(offsets) != len(sizes):
        raise FrameError("TIFF without the places of its pixels", "corrupt")
    if any(offset + size > length for offset, size in zip(offsets, sizes, strict=True)):
        raise FrameError(f"TIFF of {length} bytes is truncated", "corrupt")

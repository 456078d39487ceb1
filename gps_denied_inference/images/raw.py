"""Image messages to numpy, as cameras send them.

Nothing here imports ROS: any object with the fields of ``sensor_msgs/Image`` will do. Frames that
do not add up raise :class:`FrameError`, whose ``reason`` is one word for the node's counters:

======================  ==========================================================================
``zero_size``           width or height is 0
``too_large``           more pixels than ``max_image_pixels``, or a JPEG of too many scans
``wrong_step``          ``step`` is shorter than a row, or is no whole number of samples
``odd_size``            chroma-subsampled or Bayer image whose size does not fit its pattern
``short_data``          fewer bytes than ``step * height`` (NV12/NV21: ``* 3 / 2``)
``extra_data``          more bytes than that
``unknown_encoding``    neither known here nor to cv_bridge, or there is no cv_bridge
``corrupt``             compressed data that is damaged, truncated or does not decode; a raw image
                        whose data is an image file
======================  ==========================================================================

Choices that a caller should know:

* Mono from colour is the BT.601 luma of ``cv2.cvtColor`` (YUV images: their Y plane), what every
  other ROS node means by mono8. XFeat averages the channels of a colour image itself, so its
  features on ``color="mono"`` and ``color="rgb"`` are close but not the same.
* ``8UC3`` has no channel order; it is read as BGR, as OpenCV programs publish it.
* 16-bit images become 8-bit by a :data:`DEPTH_SCALINGS` rule, over all channels together. Bayer
  mosaics are scaled before they are demosaiced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from gps_denied_inference.errors import FrameError
from gps_denied_inference.images.choices import Color, DepthScaling
from gps_denied_inference.images.headers import read_header
from gps_denied_inference.images.limits import MAX_PIXELS, check_pixel_count

ByteArray = npt.NDArray[np.uint8]

DEPTH_SCALINGS = ("percentile", "minmax", "full")
"""How 16 bits become 8: between the 1st and 99th percentile of the frame (hot spots do not crush
the rest: the default, meant for thermal cameras), between its least and greatest value, or by the
whole range 0..65535 (constant brightness between frames)."""

PERCENTILES = (1.0, 99.0)
_BLOCK_SAMPLES = 1 << 20
_FILE_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
_SIGNATURE = 8  # bytes, of the longest


class ImageMessage(Protocol):
    """The fields of ``sensor_msgs/Image`` that are read."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any


Convert = Callable[[Any, str], Any]
"""Of a message and the encoding that is wanted, as ``CvBridge.imgmsg_to_cv2``."""

# Encoding -> (channels, bytes per sample) of images that are a plain grid of samples.
_GRID: dict[str, tuple[int, int]] = {
    "mono8": (1, 1),
    "8UC1": (1, 1),
    "rgb8": (3, 1),
    "bgr8": (3, 1),
    "8UC3": (3, 1),
    "rgba8": (4, 1),
    "bgra8": (4, 1),
    "8UC4": (4, 1),
    "mono16": (1, 2),
    "16UC1": (1, 2),
    "rgb16": (3, 2),
    "bgr16": (3, 2),
    "16UC3": (3, 2),
    "rgba16": (4, 2),
    "bgra16": (4, 2),
    **{
        f"bayer_{pattern}{bits}": (1, bits // 8)
        for pattern in ("rggb", "bggr", "gbrg", "grbg")
        for bits in (8, 16)
    },
    # Packed 4:2:2 carries two bytes per pixel.
    "uyvy": (2, 1),
    "yuv422": (2, 1),
    "yuyv": (2, 1),
    "yuv422_yuy2": (2, 1),
}
_SEMI_PLANAR = {
    "nv12": cv2.COLOR_YUV2RGB_NV12,
    "nv21": cv2.COLOR_YUV2RGB_NV21,
}

_TO_MONO = {
    "rgb": cv2.COLOR_RGB2GRAY,
    "bgr": cv2.COLOR_BGR2GRAY,
    "rgba": cv2.COLOR_RGBA2GRAY,
    "bgra": cv2.COLOR_BGRA2GRAY,
    "uyvy": cv2.COLOR_YUV2GRAY_UYVY,
    "yuyv": cv2.COLOR_YUV2GRAY_YUYV,
    # OpenCV names a pattern by the second row's second and third pixel.
    "bayer_rggb": cv2.COLOR_BayerBG2GRAY,
    "bayer_bggr": cv2.COLOR_BayerRG2GRAY,
    "bayer_gbrg": cv2.COLOR_BayerGR2GRAY,
    "bayer_grbg": cv2.COLOR_BayerGB2GRAY,
}
_TO_RGB = {
    "mono": cv2.COLOR_GRAY2RGB,
    "bgr": cv2.COLOR_BGR2RGB,
    "rgba": cv2.COLOR_RGBA2RGB,
    "bgra": cv2.COLOR_BGRA2RGB,
    "uyvy": cv2.COLOR_YUV2RGB_UYVY,
    "yuyv": cv2.COLOR_YUV2RGB_YUYV,
    "bayer_rggb": cv2.COLOR_BayerBG2RGB,
    "bayer_bggr": cv2.COLOR_BayerRG2RGB,
    "bayer_gbrg": cv2.COLOR_BayerGR2RGB,
    "bayer_grbg": cv2.COLOR_BayerGB2RGB,
}
_LAYOUT_OF_UNNAMED = {
    "8UC1": "mono", "8UC3": "bgr", "8UC4": "bgra", "16UC1": "mono", "16UC3": "bgr",
    "yuv422": "uyvy", "yuv422_yuy2": "yuyv", "uyvy": "uyvy", "yuyv": "yuyv",
}  # fmt: skip


def known_encodings() -> tuple[str, ...]:
    """Return the encodings that are decoded here."""
    return tuple(sorted((*_GRID, *_SEMI_PLANAR)))


def view(message: ImageMessage, max_pixels: int = MAX_PIXELS) -> npt.NDArray[Any]:
    """Return the samples of a grid-like image without copying them.

    Returns:
        (H, W) or (H, W, C) array over ``message.data`` in the message's own channel order and byte
        order; rows are ``step`` bytes apart, so it may be non-contiguous. It lives as long as the
        message's buffer is left alone.

    Raises:
        FrameError: see the module's table.
    """
    width, height, step = int(message.width), int(message.height), int(message.step)
    check_pixel_count(width, height, max_pixels)
    if message.encoding not in _GRID:
        raise FrameError(f"encoding '{message.encoding}' is no grid of samples", "unknown_encoding")
    channels, size = _GRID[message.encoding]
    if step < width * channels * size or step % size:
        raise FrameError(
            f"step of {step} bytes does not fit {width} px of {message.encoding} "
            f"({width * channels * size} bytes a row)",
            "wrong_step",
        )
    data = _bytes(message.data, step * height, message.encoding)
    dtype = np.dtype(np.uint8) if size == 1 else np.dtype(">u2" if message.is_bigendian else "<u2")
    shape = (height, width) if channels == 1 else (height, width, channels)
    strides = (step, size) if channels == 1 else (step, channels * size, size)
    rows: npt.NDArray[Any] = np.ndarray(shape, dtype, data, strides=strides)
    return rows


def image_to_array(
    message: ImageMessage,
    color: Color = "mono",
    depth_scaling: DepthScaling = "percentile",
    max_pixels: int = MAX_PIXELS,
    convert_others: Convert | None = None,
) -> ByteArray:
    """Convert a ``sensor_msgs/Image`` to what extractors take.

    ``mono8``/``8UC1`` to mono, ``rgb8`` to RGB and the Y plane of ``nv12``/``nv21`` to mono are
    views of the message's buffer (see :func:`view`); everything else is a new array.

    Args:
        color: ``"mono"`` or ``"rgb"``.
        depth_scaling: how 16 bits become 8, one of :data:`DEPTH_SCALINGS`.
        convert_others: called with the message and ``"mono8"`` or ``"rgb8"`` for encodings that are
            not known here; the node hands in cv_bridge's. None refuses them.

    Returns:
        (H, W) or (H, W, 3) RGB, uint8.

    Raises:
        FrameError: see the module's table.
    """
    encoding = message.encoding
    if encoding in _SEMI_PLANAR:
        return _from_semi_planar(message, color, max_pixels)
    if encoding not in _GRID:
        check_pixel_count(int(message.width), int(message.height), max_pixels)
        return _through(convert_others, message, color)
    layout = _LAYOUT_OF_UNNAMED.get(encoding, encoding.rstrip("0123456789"))
    samples = view(message, max_pixels)
    if layout in ("uyvy", "yuyv") and message.width % 2:
        raise FrameError(f"{encoding} image is {message.width} px wide, not even", "odd_size")
    if layout.startswith("bayer") and (message.width < 4 or message.height < 4):
        raise FrameError(
            f"{encoding} image of {message.width} x {message.height} px is too small to be "
            "demosaiced",
            "odd_size",
        )
    if samples.dtype.itemsize == 2:
        samples = scale_to_8_bit(samples, depth_scaling)
    return _convert(samples, layout, color)


def _through(convert: Convert | None, message: ImageMessage, color: Color) -> ByteArray:
    if convert is None:
        raise FrameError(
            f"unknown encoding '{message.encoding}' and no cv_bridge to convert it: known are "
            + ", ".join(known_encodings()),
            "unknown_encoding",
        )
    try:
        return np.asarray(convert(message, "mono8" if color == "mono" else "rgb8"), np.uint8)
    except Exception as error:  # cv_bridge raises KeyError, TypeError, RuntimeError, its own
        raise FrameError(
            f"cv_bridge cannot convert encoding '{message.encoding}': {error}", "unknown_encoding"
        ) from error


def scale_to_8_bit(samples: npt.NDArray[np.uint16], rule: DepthScaling) -> ByteArray:
    """Map 16-bit samples of either byte order to 8 bits, dark to bright.

    A frame of one single value becomes black. See :data:`DEPTH_SCALINGS` for the rules.
    """
    native = np.ascontiguousarray(samples, dtype=np.uint16)
    if rule == "full":
        low, high = 0, 65535
    elif rule == "minmax":
        low, high = int(native.min()), int(native.max())
    elif rule == "percentile":
        low, high = _percentiles(native)
    else:
        raise ValueError(f"depth scaling '{rule}': known are {', '.join(DEPTH_SCALINGS)}")
    # One look-up table instead of arithmetic per pixel: the same rounding as cv2.normalize, whose
    # result depends on a sample's value and on the two ends only.
    table = np.zeros(65536, dtype=np.uint8)
    table[high:] = 255 if high > low else 0
    if high > low:
        ramp = np.arange(low, high + 1, dtype=np.uint16)
        table[low : high + 1] = cv2.normalize(
            ramp, np.empty(0), 0, 255, cv2.NORM_MINMAX, cv2.CV_8U
        ).ravel()
    scaled = np.empty(native.shape, np.uint8)
    for rows in _blocks(native):
        scaled[rows] = table[native[rows]]
    return scaled


def _blocks(samples: npt.NDArray[Any]) -> Iterator[slice]:
    """Yield slices of rows: numpy's indices take 8 bytes a sample, too many for a whole image."""
    step = max(1, _BLOCK_SAMPLES // max(1, samples[:1].size))
    for start in range(0, len(samples), step):
        yield slice(start, start + step)


def _percentiles(samples: npt.NDArray[np.uint16]) -> tuple[int, int]:
    """Return the least values that PERCENTILES of all samples do not exceed."""
    counts = np.zeros(65536, np.int64)
    for rows in _blocks(samples):
        counts += np.bincount(samples[rows].ravel(), minlength=65536)
    cumulative = np.cumsum(counts)
    low, high = (
        int(np.searchsorted(cumulative, np.ceil(share / 100.0 * samples.size)))
        for share in PERCENTILES
    )
    return low, high


def _convert(samples: ByteArray, layout: str, color: Color) -> ByteArray:
    """Convert 8-bit samples of a layout to mono or RGB."""
    table = _table(color)
    if layout == color:
        return samples
    converted: ByteArray = cv2.cvtColor(samples, table[layout])
    return converted


def _table(color: Color) -> dict[str, int]:
    if color == "mono":
        return _TO_MONO
    if color == "rgb":
        return _TO_RGB
    raise ValueError(f"color '{color}': known are mono, rgb")


def _from_semi_planar(message: ImageMessage, color: Color, max_pixels: int) -> ByteArray:
    """NV12 and NV21: ``height`` rows of Y, then ``height / 2`` rows of chroma pairs."""
    width, height, step = int(message.width), int(message.height), int(message.step)
    check_pixel_count(width, height, max_pixels)
    _table(color)
    if width % 2 or height % 2:
        raise FrameError(f"{message.encoding} image of {width} x {height} px: odd", "odd_size")
    if step < width:
        raise FrameError(f"step of {step} bytes is shorter than {width} px of Y", "wrong_step")
    rows = height * 3 // 2
    data = _bytes(message.data, step * rows, message.encoding)
    planes = np.ndarray((rows, width), np.uint8, data, strides=(step, 1))
    if color == "mono":
        luma: ByteArray = planes[:height]
        return luma
    converted: ByteArray = cv2.cvtColor(
        np.ascontiguousarray(planes), _SEMI_PLANAR[message.encoding]
    )
    return converted


def _bytes(data: Any, expected: int, encoding: str) -> memoryview:
    """Return the message's bytes as a flat buffer of exactly ``expected`` bytes."""
    try:
        flat = memoryview(data).cast("B")
    except TypeError as error:
        raise FrameError(f"image data of type {type(data).__name__} is no buffer") from error
    if bytes(flat[:_SIGNATURE]).startswith(_FILE_SIGNATURES):
        _refuse_image_file(flat, encoding)
    if len(flat) != expected:
        short = len(flat) < expected
        raise FrameError(
            f"{encoding} image carries {len(flat)} bytes where its sizes say {expected}",
            "short_data" if short else "extra_data",
        )
    return flat


def _refuse_image_file(data: memoryview, encoding: str) -> None:
    """Refuse a JPEG or PNG that travels as raw samples, whatever fills it up behind its end.

    Bytes that merely begin like one, as any pixels may, do not hold a whole file.
    """

    try:
        kind = read_header(data, data.nbytes << 16).kind
    except FrameError:
        return
    raise FrameError(
        f"data of the {encoding} image is a {kind} file: publish it as sensor_msgs/CompressedImage "
        "and set image_transport to 'compressed'",
        "corrupt",
    )

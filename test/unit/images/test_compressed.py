"""JPEG and PNG frames: equal to OpenCV's own decoding, and nothing broken gets through."""

from __future__ import annotations

import array
import struct
import zlib
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gps_denied_inference.errors import FrameError
from gps_denied_inference.images.compressed import compressed_to_array, image_file_size

RNG = np.random.default_rng(3)
BGR = cv2.GaussianBlur(RNG.integers(0, 256, (48, 70, 3), dtype=np.uint8), (0, 0), 2)
GRAY = BGR[..., 1].copy()


def encode(extension, image, *options):
    return cv2.imencode(extension, image, list(options))[1].tobytes()


def message(data, name="jpeg"):
    return SimpleNamespace(format=name, data=array.array("B", data))


JPEG = encode(".jpg", BGR)
PNG = encode(".png", BGR)
FILES = {
    "jpeg": JPEG,
    "progressive": encode(".jpg", BGR, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "restart": encode(".jpg", BGR, cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
    "jpeg_gray": encode(".jpg", GRAY),
    "png": PNG,
    "png_gray": encode(".png", GRAY),
    "png_alpha": encode(".png", cv2.cvtColor(BGR, cv2.COLOR_BGR2BGRA)),
}


@pytest.mark.parametrize("name", FILES)
def test_equals_opencv(name):
    buffer = np.frombuffer(FILES[name], np.uint8)
    sent = message(FILES[name], "bgr8; jpeg compressed bgr8")
    np.testing.assert_array_equal(
        compressed_to_array(sent, "mono"), cv2.imdecode(buffer, cv2.IMREAD_GRAYSCALE)
    )
    color = cv2.imdecode(buffer, cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(
        compressed_to_array(sent, "rgb"), cv2.cvtColor(color, cv2.COLOR_BGR2RGB)
    )
    assert image_file_size(FILES[name]) == (70, 48)


def test_red_stays_red():
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 2] = 255  # BGR
    assert (compressed_to_array(message(encode(".png", red)), "rgb") == (255, 0, 0)).all()


def test_sixteen_bit_png_is_scaled():
    thermal = GRAY.astype(np.uint16) * 20 + 3000
    got = compressed_to_array(message(encode(".png", thermal), "mono16; png"), "mono", "minmax")
    np.testing.assert_array_equal(
        got, cv2.normalize(thermal, None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U)
    )


def test_exif_orientation_is_ignored():
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    turned = JPEG[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + JPEG[2:]
    assert cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR).shape[:2] == (70, 48)
    np.testing.assert_array_equal(
        compressed_to_array(message(turned), "rgb"), compressed_to_array(message(JPEG), "rgb")
    )


def png_claiming(width, height):
    """A tiny PNG whose header promises a huge image."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(10_000_000), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def jpeg_claiming(width, height):
    frame = JPEG.index(b"\xff\xc0")
    return JPEG[: frame + 5] + struct.pack(">HH", height, width) + JPEG[frame + 9 :]


REFUSED = [
    ("zero_size", b""),
    ("unknown_encoding", b"RIFF1234WEBP"),
    ("unknown_encoding", encode(".bmp", BGR)),
    ("corrupt", JPEG[: len(JPEG) // 2]),
    ("corrupt", JPEG[:-2]),
    ("corrupt", JPEG[:20]),
    ("corrupt", JPEG[:4]),
    ("corrupt", JPEG[:2] + b"\xff\xd9"),
    ("corrupt", JPEG[:2] + b"\xff\xda\0\x08" + bytes(20) + b"\xff\xd9"),
    ("corrupt", PNG[: len(PNG) // 2]),
    ("corrupt", PNG[:20]),
    ("corrupt", PNG[:60] + bytes(80) + PNG[140:]),
    ("too_large", png_claiming(60_000, 60_000)),
    ("too_large", jpeg_claiming(60_000, 60_000)),
    ("zero_size", jpeg_claiming(0, 48)),
    ("zero_size", png_claiming(0, 0)),
]


@pytest.mark.parametrize(("reason", "data"), REFUSED)
@pytest.mark.parametrize("color", ["mono", "rgb"])
def test_refused_with_a_reason(reason, data, color):
    with pytest.raises(FrameError) as refusal:
        compressed_to_array(message(data), color)
    assert refusal.value.reason == reason


def test_bombs_are_refused_unopened(monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    for bomb in (png_claiming(60_000, 60_000), jpeg_claiming(60_000, 60_000)):
        with pytest.raises(FrameError):
            compressed_to_array(message(bomb))


def test_compressed_depth_is_refused():
    with pytest.raises(FrameError) as refusal:
        compressed_to_array(message(PNG, "16UC1; compressedDepth png"))
    assert refusal.value.reason == "unknown_encoding"


@given(st.sampled_from([JPEG, PNG]), st.integers(0, 4000), st.binary(max_size=30))
def test_damage_never_gets_out_as_another_exception(data, at, damage):
    at %= len(data)
    try:
        got = compressed_to_array(message(data[:at] + damage + data[at + len(damage) :]), "rgb")
    except FrameError:
        return
    assert got.ndim == 3

"""Image files in memory: equal to OpenCV's own decoding, and nothing broken gets through."""

from __future__ import annotations

import array
import struct
from types import SimpleNamespace

import cv2
import hostile_images as hostile
import numpy as np
import pytest
import simplejpeg
from hostile_images import encode
from hypothesis import given
from hypothesis import strategies as st

from gps_denied_inference.errors import FrameError
from gps_denied_inference.images.compressed import compressed_to_array, decode_image
from gps_denied_inference.images.headers import MAX_SCANS, read_header

RNG = np.random.default_rng(3)
BGR = cv2.GaussianBlur(RNG.integers(0, 256, (48, 70, 3), dtype=np.uint8), (0, 0), 2)
GRAY = BGR[..., 1].copy()
THERMAL = GRAY.astype(np.uint16) * 20 + 3000


def message(data, name="jpeg"):
    return SimpleNamespace(format=name, data=array.array("B", data))


JPEG = encode(".jpg", BGR)
PNG = encode(".png", BGR)
FILES = {
    "jpeg": JPEG,
    "progressive": encode(".jpg", BGR, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "restart": encode(".jpg", BGR, cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
    **{
        f"jpeg_{factor:x}": encode(".jpg", BGR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor)
        for factor in (0x111111, 0x121111, 0x211111, 0x221111, 0x411111)
    },
    "jpeg_gray": encode(".jpg", GRAY),
    "png": PNG,
    "png_gray": encode(".png", GRAY),
    "png_alpha": encode(".png", cv2.cvtColor(BGR, cv2.COLOR_BGR2BGRA)),
    "tiff": encode(".tiff", BGR),
    "tiff_gray": encode(".tiff", GRAY),
    "bmp": encode(".bmp", BGR),
    "webp": encode(".webp", BGR),
    "webp_lossy": encode(".webp", BGR, cv2.IMWRITE_WEBP_QUALITY, 80),
    "ppm": encode(".ppm", BGR),
    "pgm": encode(".pgm", GRAY),
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
    header = read_header(FILES[name])
    assert (header.width, header.height) == (70, 48)


def test_red_stays_red():
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 2] = 255  # BGR
    for extension in (".png", ".tiff", ".bmp", ".webp", ".ppm"):
        assert (decode_image(encode(extension, red), "rgb") == (255, 0, 0)).all()
    assert (decode_image(encode(".jpg", red), "rgb")[0, 0] > (250, -1, -1)).all()


@pytest.mark.parametrize("extension", [".png", ".tiff", ".pgm"])
def test_sixteen_bits_are_scaled_as_raw_ones_are(extension):
    sent = message(encode(extension, THERMAL), "mono16; png")
    np.testing.assert_array_equal(
        compressed_to_array(sent, "mono", "minmax"),
        cv2.normalize(THERMAL, None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U),
    )


def tiff_turned(data):
    """The same little-endian TIFF with orientation 6 in place of its last tag."""
    at = struct.unpack("<I", data[4:8])[0]
    count = struct.unpack("<H", data[at : at + 2])[0]
    entries = [data[at + 2 + 12 * i : at + 14 + 12 * i] for i in range(count)]
    entries.append(struct.pack("<HHIHH", 274, 3, 1, 6, 0))
    entries.sort(key=lambda entry: struct.unpack("<H", entry[:2])[0])
    directory = struct.pack("<H", count + 1) + b"".join(entries) + bytes(4)
    return data[:4] + struct.pack("<I", len(data)) + data[8:] + directory


@pytest.mark.parametrize(
    ("plain", "turned"),
    [
        (JPEG, hostile.turned(JPEG)),
        (FILES["tiff"], tiff_turned(FILES["tiff"])),
        (FILES["tiff_gray"], tiff_turned(FILES["tiff_gray"])),
    ],
    ids=["jpeg", "tiff", "tiff_gray"],
)
@pytest.mark.parametrize("color", ["mono", "rgb"])
def test_orientation_is_ignored(plain, turned, color):
    """OpenCV turns each of these; camera_info describes the raster as it is stored."""
    obeyed = cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR)
    as_stored = cv2.imdecode(np.frombuffer(plain, np.uint8), cv2.IMREAD_COLOR)
    assert obeyed.shape != as_stored.shape or (obeyed != as_stored).any()
    np.testing.assert_array_equal(decode_image(turned, color), decode_image(plain, color))


def test_what_follows_the_end_is_left_out():
    for data in (JPEG, PNG, FILES["webp"]):
        np.testing.assert_array_equal(
            decode_image(data + bytes(5000) + b"\xff", "rgb"), decode_image(data, "rgb")
        )


def test_chunks_that_are_no_pixels_are_left_out():
    extra = hostile.png_chunk(b"tEXt", b"IEND") + hostile.png_chunk(b"eXIf", bytes(80))
    np.testing.assert_array_equal(
        decode_image(PNG[:33] + extra + PNG[33:], "rgb"), decode_image(PNG, "rgb")
    )


def dropped_data(data):
    """A PNG with whole checksums whose image data end early."""
    at = data.index(b"IDAT")
    return data[: at - 4] + hostile.png_chunk(b"IDAT", data[at + 4 : at + 40]) + data[-12:]


REFUSED = [
    ("zero_size", b""),
    ("unknown_encoding", b"RIFF1234WAVE"),
    ("unknown_encoding", b"GIF89a" + bytes(40)),
    ("unknown_encoding", encode(".tiff", GRAY.astype(np.float32))),
    ("unknown_encoding", JPEG.replace(b"\xff\xc0", b"\xff\xc3", 1)),
    ("corrupt", b"RIFF1234WEBP"),
    ("corrupt", JPEG[: len(JPEG) // 2]),
    ("corrupt", JPEG[:-2]),
    ("corrupt", JPEG[: len(JPEG) // 2] + b"\xff\xd9"),
    ("corrupt", JPEG[:20]),
    ("corrupt", JPEG[:4]),
    ("corrupt", JPEG[:2] + b"\xff\xd9"),
    ("corrupt", JPEG[:2] + b"\xff\xda\0\x08" + bytes(20) + b"\xff\xd9"),
    ("corrupt", hostile.damaged(JPEG)),
    ("corrupt", PNG[: len(PNG) // 2]),
    ("corrupt", PNG[:20]),
    ("corrupt", PNG[:60] + bytes(80) + PNG[140:]),
    ("corrupt", dropped_data(PNG)),
    *(("corrupt", FILES[name][:-20]) for name in ("tiff", "bmp", "webp", "ppm", "pgm")),
    *(("corrupt", FILES[name][:12]) for name in ("tiff", "bmp", "webp", "ppm", "pgm")),
    ("corrupt", b"P5 99999999999 1 255\n" + bytes(99)),
    ("too_large", hostile.png(9999, 10000, 16)),
    ("too_large", hostile.jpeg_claiming(JPEG, 60_000, 60_000)),
    ("too_large", hostile.jpeg_claiming(encode(".jpg", np.zeros((8, 8, 3), np.uint8)), 9999, 9999)),
    ("too_large", hostile.jpeg_of_many_scans(2000, 640, 480)),
    ("too_large", b"P5 60000 60000 255\n"),
    ("too_large", b"BM" + struct.pack("<IIIIiiHHI", 0, 0, 54, 40, 60_000, -60_000, 1, 8, 1)),
    ("zero_size", hostile.jpeg_claiming(JPEG, 0, 48)),
    ("zero_size", b"\x89PNG\r\n\x1a\n" + hostile.png_chunk(b"IHDR", bytes(13))),
]


@pytest.mark.parametrize(("reason", "data"), REFUSED)
@pytest.mark.parametrize("color", ["mono", "rgb"])
def test_refused_with_a_reason(reason, data, color, capfd):
    with pytest.raises(FrameError) as refusal:
        compressed_to_array(message(data), color)
    assert refusal.value.reason == reason
    assert "libjpeg" not in capfd.readouterr().err


def test_what_libjpeg_warns_of_is_corrupt_and_stderr_stays_clean(capfd):
    """OpenCV decodes the damaged file, to a picture that is wrong from the damage on."""
    image = cv2.GaussianBlur(RNG.integers(0, 256, (240, 320, 3), dtype=np.uint8), (0, 0), 3)
    whole = encode(".jpg", image)
    wrong = cv2.imdecode(np.frombuffer(hostile.damaged(whole), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert (wrong[120:] != decode_image(whole)[120:]).mean() > 0.9
    capfd.readouterr()
    with pytest.raises(FrameError, match=r"JPEG does not decode: .*(orrupt|remature)") as refusal:
        decode_image(hostile.damaged(whole))
    assert refusal.value.reason == "corrupt"
    assert capfd.readouterr().err == ""


def test_bombs_are_refused_unopened(monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *_, **__: pytest.fail("decoded"))
    for reason, bomb in REFUSED:
        if reason == "too_large":
            with pytest.raises(FrameError):
                compressed_to_array(message(bomb))


def test_bounds_hold_to_the_pixel_and_to_the_scan():
    for data in FILES.values():
        assert decode_image(data, max_pixels=48 * 70).shape == (48, 70)
        with pytest.raises(FrameError, match="max_image_pixels is 3359") as refusal:
            decode_image(data, max_pixels=48 * 70 - 1)
        assert refusal.value.reason == "too_large"
    # All scans but the first ten are repeated, which is an error of its own to libjpeg.
    with pytest.raises(FrameError) as refusal:
        decode_image(hostile.jpeg_of_many_scans(MAX_SCANS, 64, 48))
    assert refusal.value.reason == "corrupt"
    with pytest.raises(FrameError, match=f"{MAX_SCANS + 1} scans") as refusal:
        decode_image(hostile.jpeg_of_many_scans(MAX_SCANS + 1, 64, 48))
    assert refusal.value.reason == "too_large"


def test_compressed_depth_is_refused():
    with pytest.raises(FrameError) as refusal:
        compressed_to_array(message(PNG, "16UC1; compressedDepth png"))
    assert refusal.value.reason == "unknown_encoding"


@given(st.sampled_from(sorted(FILES)), st.integers(0, 4000), st.binary(max_size=30))
def test_damage_never_gets_out_as_another_exception(name, at, damage):
    data = FILES[name]
    at %= len(data)
    try:
        got = decode_image(data[:at] + damage + data[at + len(damage) :], "rgb")
    except FrameError:
        return
    assert got.ndim == 3

"""Every encoding against a reference that OpenCV alone makes; every malformed frame refused."""

from __future__ import annotations

import array
import tracemalloc
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hostile_images import encode
from hypothesis import given
from hypothesis import strategies as st

from gps_denied_inference.errors import FrameError
from gps_denied_inference.images import raw
from gps_denied_inference.images.raw import image_to_array, scale_to_8_bit, view

H, W = 30, 44
RNG = np.random.default_rng(7)
# Smooth, so that demosaicing and chroma subsampling are exercised on something like an image.
RGB = cv2.GaussianBlur(RNG.integers(0, 256, (H, W, 3), dtype=np.uint8), (0, 0), 2)
RGB = cv2.normalize(RGB, None, 0, 255, cv2.NORM_MINMAX)
BGR = RGB[..., ::-1].copy()
GRAY = cv2.cvtColor(RGB, cv2.COLOR_RGB2GRAY)


def message(encoding, pixels, pad=0, big_endian=False, **changes):
    """Build a message whose rows are ``pad`` bytes longer than they need to be."""
    pixels = np.ascontiguousarray(pixels)
    if pixels.dtype.itemsize == 2:
        pixels = pixels.astype(">u2" if big_endian else "<u2")
    height, width = pixels.shape[:2]
    rows = pixels.view(np.uint8).reshape(height, -1)
    padded = np.full((height, rows.shape[1] + pad), 0xAB, np.uint8)
    padded[:, : rows.shape[1]] = rows
    fields = {
        "height": height,
        "width": width,
        "encoding": encoding,
        "is_bigendian": int(big_endian),
        "step": padded.shape[1],
        "data": array.array("B", padded.tobytes()),
    }
    fields.update(changes)
    return SimpleNamespace(**fields)


def with_alpha(image):
    return np.dstack([image, np.full(image.shape[:2], 99, image.dtype)])


def packed_422(order):
    """Y, U and V sampled as a 4:2:2 camera does, in the named byte order."""
    yuv = cv2.cvtColor(RGB, cv2.COLOR_RGB2YUV)
    out = np.empty((H, W, 2), np.uint8)
    luma, chroma = (0, 1) if order == "yuyv" else (1, 0)
    out[..., luma] = yuv[..., 0]
    out[:, 0::2, chroma] = yuv[:, 0::2, 1]
    out[:, 1::2, chroma] = yuv[:, 0::2, 2]
    return out


def semi_planar(order):
    """I420 from OpenCV, its chroma planes woven together."""
    i420 = cv2.cvtColor(RGB, cv2.COLOR_RGB2YUV_I420)
    u, v = i420[H:].reshape(2, -1)
    pair = (u, v) if order == "nv12" else (v, u)
    return np.vstack([i420[:H], np.stack(pair, axis=1).reshape(H // 2, W)])


def mosaic(pattern, dtype=np.uint8):
    """One colour sample per pixel, as the pattern's four letters lie in the first 2 x 2 pixels."""
    raw = np.empty((H, W), dtype)
    source = RGB if dtype == np.uint8 else (RGB.astype(np.uint16) * 16 + 100)
    for i, letter in enumerate(pattern):
        raw[i // 2 :: 2, i % 2 :: 2] = source[i // 2 :: 2, i % 2 :: 2, "rgb".index(letter)]
    return raw


BAYER = {"rggb": "BG", "bggr": "RG", "gbrg": "GR", "grbg": "GB"}

EIGHT_BIT = [
    ("mono8", GRAY, GRAY, cv2.cvtColor(GRAY, cv2.COLOR_GRAY2RGB)),
    ("8UC1", GRAY, GRAY, cv2.cvtColor(GRAY, cv2.COLOR_GRAY2RGB)),
    ("rgb8", RGB, GRAY, RGB),
    ("bgr8", BGR, GRAY, RGB),
    ("8UC3", BGR, GRAY, RGB),
    ("rgba8", with_alpha(RGB), GRAY, RGB),
    ("bgra8", with_alpha(BGR), GRAY, RGB),
    ("8UC4", with_alpha(BGR), GRAY, RGB),
    *[
        (
            name,
            packed_422(order),
            cv2.cvtColor(packed_422(order), getattr(cv2, f"COLOR_YUV2GRAY_{order.upper()}")),
            cv2.cvtColor(packed_422(order), getattr(cv2, f"COLOR_YUV2RGB_{order.upper()}")),
        )
        for name, order in [
            ("yuv422", "uyvy"),
            ("uyvy", "uyvy"),
            ("yuv422_yuy2", "yuyv"),
            ("yuyv", "yuyv"),
        ]
    ],
    *[
        (
            f"bayer_{pattern}8",
            mosaic(pattern),
            cv2.cvtColor(mosaic(pattern), getattr(cv2, f"COLOR_Bayer{name}2GRAY")),
            cv2.cvtColor(mosaic(pattern), getattr(cv2, f"COLOR_Bayer{name}2RGB")),
        )
        for pattern, name in BAYER.items()
    ],
]


@pytest.mark.parametrize("pad", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "pixels", "mono", "rgb"), EIGHT_BIT, ids=[c[0] for c in EIGHT_BIT]
)
def test_eight_bit_encodings_equal_opencv(encoding, pixels, mono, rgb, pad):
    sent = message(encoding, pixels, pad)
    np.testing.assert_array_equal(image_to_array(sent, "mono"), mono)
    np.testing.assert_array_equal(image_to_array(sent, "rgb"), rgb)


@pytest.mark.parametrize("pattern", BAYER)
def test_a_demosaiced_image_looks_like_the_scene(pattern):
    """The reference above shares the table of names: this one catches two swapped patterns."""
    rgb = image_to_array(message(f"bayer_{pattern}8", mosaic(pattern)), "rgb")
    inner = np.s_[2:-2, 2:-2]
    error = np.abs(rgb[inner].astype(int) - RGB[inner]).mean()
    assert error < 6
    swapped = np.abs(rgb[inner][..., ::-1].astype(int) - RGB[inner]).mean()
    assert swapped > 3 * error


@pytest.mark.parametrize("order", ["yuyv", "uyvy"])
def test_a_decoded_422_image_looks_like_the_scene(order):
    rgb = image_to_array(message(order, packed_422(order)), "rgb")
    # The mosaic above is full range, OpenCV's unpacking video range: contrast grows by that.
    error = np.abs(rgb.astype(int) - RGB).mean()
    assert error < 20
    assert np.abs(rgb[..., ::-1].astype(int) - RGB).mean() > 1.5 * error


@pytest.mark.parametrize("pad", [0, 6])
@pytest.mark.parametrize("order", ["nv12", "nv21"])
def test_semi_planar_equals_opencv(order, pad):
    planes = semi_planar(order)
    sent = message(order, planes, pad, height=H)
    code = getattr(cv2, f"COLOR_YUV2RGB_{order.upper()}")
    np.testing.assert_array_equal(image_to_array(sent, "rgb"), cv2.cvtColor(planes, code))
    np.testing.assert_array_equal(
        image_to_array(sent, "mono"), cv2.cvtColor(planes, cv2.COLOR_YUV2GRAY_420)
    )
    error = np.abs(image_to_array(sent, "rgb").astype(int) - RGB).mean()
    assert error < 12  # U and V the right way round


SIXTEEN = (RGB.astype(np.uint16) * 37 + 5000).astype(np.uint16)


def to_8(samples, rule):
    """The 16-to-8-bit rules in OpenCV's and numpy's own words."""
    flat = np.sort(samples.ravel())
    if rule == "full":
        ends = np.array([0, 65535], np.uint16)
    elif rule == "minmax":
        ends = flat[[0, -1]]
    else:
        ends = flat[[int(np.ceil(p / 100 * flat.size)) - 1 for p in (1.0, 99.0)]]
    clipped = np.clip(samples, *ends)
    # normalize works on the values present: the two ends ride along.
    carrier = np.append(clipped.ravel(), ends).astype(np.uint16)
    scaled = cv2.normalize(carrier, None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U).ravel()
    return scaled[:-2].reshape(samples.shape)


@pytest.mark.parametrize("rule", raw.DEPTH_SCALINGS)
@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("encoding", ["mono16", "16UC1"])
def test_sixteen_bit_mono(encoding, big_endian, rule):
    thermal = SIXTEEN[..., 1]
    sent = message(encoding, thermal, 4, big_endian)
    np.testing.assert_array_equal(image_to_array(sent, "mono", rule), to_8(thermal, rule))
    assert image_to_array(sent, "rgb", rule).shape == (H, W, 3)


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize(
    ("encoding", "order"),
    [("rgb16", "rgb"), ("bgr16", "bgr"), ("16UC3", "bgr"), ("rgba16", "rgba"), ("bgra16", "bgra")],
)
def test_sixteen_bit_colour(encoding, order, big_endian):
    image = SIXTEEN if order.startswith("rgb") else SIXTEEN[..., ::-1]
    image = with_alpha(image) if order.endswith("a") else image
    sent = message(encoding, image, 2, big_endian)
    expected = to_8(image, "minmax")[..., :3]
    expected = expected if order.startswith("rgb") else expected[..., ::-1]
    np.testing.assert_array_equal(image_to_array(sent, "rgb", "minmax"), expected)


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("pattern", BAYER)
def test_sixteen_bit_bayer(pattern, big_endian):
    raw = mosaic(pattern, np.uint16)
    sent = message(f"bayer_{pattern}16", raw, 0, big_endian)
    code = getattr(cv2, f"COLOR_Bayer{BAYER[pattern]}2RGB")
    expected = cv2.cvtColor(to_8(raw, "percentile"), code)
    np.testing.assert_array_equal(image_to_array(sent, "rgb"), expected)


def test_a_thermal_frame_of_one_value_is_black():
    assert not scale_to_8_bit(np.full((4, 4), 7000, np.uint16), "minmax").any()
    assert not scale_to_8_bit(np.full((4, 4), 7000, np.uint16), "percentile").any()


def test_hot_pixels_do_not_crush_the_rest():
    thermal = SIXTEEN[..., 0].copy()
    thermal[0, :3] = 65535
    spread = {r: int(np.ptp(scale_to_8_bit(thermal, r)[1:])) for r in ("percentile", "minmax")}
    assert spread["percentile"] > 240 > 100 > spread["minmax"]


@pytest.mark.parametrize("pad", [0, 7])
@pytest.mark.parametrize(
    ("encoding", "pixels", "color"),
    [("mono8", GRAY, "mono"), ("8UC1", GRAY, "mono"), ("rgb8", RGB, "rgb")],
)
def test_nothing_is_copied(encoding, pixels, color, pad):
    sent = message(encoding, pixels, pad)
    got = image_to_array(sent, color)
    assert np.shares_memory(got, np.frombuffer(sent.data, np.uint8))
    sent.data[0] ^= 0xFF
    assert got.reshape(-1)[0] == sent.data[0]


@pytest.mark.parametrize(("encoding", "pixels"), [("bgr8", BGR), ("8UC3", BGR), ("rgb8", RGB)])
def test_view_keeps_the_messages_own_channels(encoding, pixels):
    sent = message(encoding, pixels, 3)
    np.testing.assert_array_equal(view(sent), pixels)
    assert np.shares_memory(view(sent), np.frombuffer(sent.data, np.uint8))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, np.asarray])
def test_any_buffer_will_do(kind):
    sent = message("bgr8", BGR)
    sent.data = kind(bytes(sent.data)) if kind is not np.asarray else np.asarray(sent.data)
    np.testing.assert_array_equal(image_to_array(sent, "rgb"), RGB)


MALFORMED = [
    ("zero_size", message("mono8", GRAY, width=0)),
    ("zero_size", message("mono8", GRAY, height=0)),
    ("zero_size", message("nv12", GRAY, height=0)),
    ("zero_size", message("what", GRAY, height=0)),
    ("too_large", message("mono8", GRAY, width=10_000, height=10_000, step=10_000)),
    ("too_large", message("nv12", GRAY, width=10_000, height=10_000, step=10_000)),
    ("wrong_step", message("mono8", GRAY, step=W - 1)),
    ("wrong_step", message("mono8", GRAY, step=0)),
    ("wrong_step", message("rgb8", RGB, step=W)),
    ("wrong_step", message("mono16", SIXTEEN[..., 0], step=W)),
    ("wrong_step", message("mono16", SIXTEEN[..., 0], step=2 * W + 1)),
    ("wrong_step", message("nv12", semi_planar("nv12"), height=H, step=W - 2)),
    ("short_data", message("mono8", GRAY, data=b"")),
    ("short_data", message("mono8", GRAY, step=W + 1)),
    ("short_data", message("rgb8", RGB, data=RGB.tobytes()[:-1])),
    ("short_data", message("nv21", semi_planar("nv21")[:H])),
    ("extra_data", message("mono8", GRAY, data=GRAY.tobytes() + b"\0")),
    ("extra_data", message("mono8", GRAY, height=H - 1)),
    ("odd_size", message("yuyv", packed_422("yuyv")[:, :-1])),
    ("odd_size", message("nv12", semi_planar("nv12")[:, :-1], height=H)),
    ("odd_size", message("bayer_rggb8", mosaic("rggb")[:2])),
    ("unknown_encoding", message("quaternion8", GRAY)),
    ("unknown_encoding", message("", GRAY)),
    ("unknown_encoding", message("32FC1", GRAY)),
    ("malformed", message("mono8", GRAY, data=None)),
]


@pytest.mark.parametrize(("reason", "sent"), MALFORMED)
def test_malformed_frames_are_refused_with_a_reason(reason, sent):
    for color in ("mono", "rgb"):
        with pytest.raises(FrameError) as refusal:
            image_to_array(sent, color)
        assert refusal.value.reason == reason


@pytest.mark.parametrize("extension", [".jpg", ".png"])
def test_an_image_file_in_raw_samples_is_no_noise(extension):
    """Some drivers leave the camera's JPEG in an Image message, filled up to the expected size."""
    file = encode(extension, RGB)
    padded = np.zeros((64, 400, 3), np.uint8)
    padded.reshape(-1)[: len(file)] = np.frombuffer(file, np.uint8)
    for sent in (message("rgb8", padded), message("rgb8", padded, data=file)):
        with pytest.raises(FrameError, match=r"is a (JPEG|PNG) file: publish it as") as refusal:
            image_to_array(sent)
        assert refusal.value.reason == "corrupt"


def test_pixels_that_begin_like_a_jpeg_are_pixels():
    image = RGB.copy()
    image[0, 0] = (0xFF, 0xD8, 0xFF)
    np.testing.assert_array_equal(image_to_array(message("rgb8", image), "rgb"), image)


def test_sixteen_bits_take_no_more_memory_than_their_pixels():
    """Beside the 8-bit result, a block of rows at a time: numpy's indices are 8 bytes each."""
    thermal = np.arange(4_000_000, dtype=np.uint32).astype(np.uint16).reshape(2000, 2000)
    expected = to_8(thermal, "percentile")
    tracemalloc.start()
    got = scale_to_8_bit(thermal, "percentile")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(got, expected)
    assert peak < 6 * thermal.size


def test_unknown_encodings_go_to_what_was_handed_in():
    asked = []

    def convert(sent, encoding):
        asked.append((sent.encoding, encoding))
        if sent.encoding == "bad":
            raise RuntimeError("no such conversion")
        return GRAY

    sent = message("nv24", GRAY)
    np.testing.assert_array_equal(image_to_array(sent, "mono", convert_others=convert), GRAY)
    assert asked == [("nv24", "mono8")]
    with pytest.raises(FrameError, match="no such conversion") as refusal:
        image_to_array(message("bad", GRAY), convert_others=convert)
    assert refusal.value.reason == "unknown_encoding"
    assert isinstance(refusal.value.__cause__, RuntimeError)


def test_wrong_options_are_a_callers_error():
    with pytest.raises(ValueError, match="sepia"):
        image_to_array(message("bgr8", BGR), "sepia")
    with pytest.raises(ValueError, match="gamma"):
        image_to_array(message("mono16", SIXTEEN[..., 0]), "mono", "gamma")


BRIDGED = [
    ("mono8", GRAY),
    ("bgr8", BGR),
    ("rgb8", RGB),
    ("bgra8", with_alpha(BGR)),
    ("rgba8", with_alpha(RGB)),
    ("yuv422", packed_422("uyvy")),
    ("yuv422_yuy2", packed_422("yuyv")),
    *((f"bayer_{pattern}8", mosaic(pattern)) for pattern in BAYER),
]


@pytest.mark.parametrize(("encoding", "pixels"), BRIDGED, ids=[name for name, _ in BRIDGED])
def test_parity_with_cv_bridge(encoding, pixels):
    """The 8-bit encodings that jazzy's cv_bridge knows; 16 bits it scales by the whole range."""
    bridge = pytest.importorskip("cv_bridge", reason="cv_bridge is not installed").CvBridge()
    image = pytest.importorskip("sensor_msgs.msg", reason="no ROS").Image
    sent = vars(message(encoding, pixels))
    real = image(**{k: v for k, v in sent.items() if k != "data"})
    real.data = sent["data"]
    np.testing.assert_array_equal(image_to_array(real, "rgb"), bridge.imgmsg_to_cv2(real, "rgb8"))
    # From a mosaic cv_bridge makes colour first, then grey, and so rounds twice.
    limit = 1 if encoding.startswith("bayer") else 0
    mono = image_to_array(real, "mono").astype(int)
    assert np.abs(mono - bridge.imgmsg_to_cv2(real, "mono8")).max() <= limit


@given(
    encoding=st.sampled_from([*raw.known_encodings(), "nonsense"]),
    width=st.integers(0, 40),
    height=st.integers(0, 40),
    step=st.integers(0, 400),
    data=st.binary(max_size=4000),
    exact=st.booleans(),
)
def test_no_frame_gets_out_as_another_exception(encoding, width, height, step, data, exact):
    if exact:
        data = bytes(step * height * (3 if encoding.startswith("nv") else 2) // 2)
    sent = SimpleNamespace(
        width=width, height=height, encoding=encoding, is_bigendian=0, step=step, data=data
    )
    for color, shape in (("mono", (height, width)), ("rgb", (height, width, 3))):
        try:
            got = image_to_array(sent, color)
        except FrameError:
            continue
        assert got.shape == shape
        assert got.dtype == np.uint8

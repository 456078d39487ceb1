"""Damaged JPEG frames of real flights: what libjpeg warns of is ``corrupt``, and nothing else is.

libjpeg does not notice all damage: a code that means another value is as good as the right one, and
the codes after it find their step again. What OpenCV's own libjpeg says on stderr is the measure.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter

import cv2
import numpy as np
import pytest

from gps_denied_inference.errors import FrameError
from gps_denied_inference.images.compressed import decode_image

FLIGHTS = ("caliterra", "brighton_beach", "fengyuan_dev")
KINDS = {
    "plain": (),
    "restart": (cv2.IMWRITE_JPEG_RST_INTERVAL, 40),
    "progressive": (cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "optimised": (cv2.IMWRITE_JPEG_OPTIMIZE, 1),
    "grey": (),
}
DAMAGES = ("bit", "zeros", "noise", "lost_byte", "lost_packet")
TRIES = 12  # per flight and damage


def as_libjpeg_says(data: bytes) -> str:
    """Decode with OpenCV; return what its libjpeg wrote to stderr."""
    kept = os.dup(2)
    with tempfile.TemporaryFile() as lines:
        os.dup2(lines.fileno(), 2)
        try:
            cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        lines.seek(0)
        return lines.read().decode(errors="replace")


def encoded(shared_data, kind):
    for flight in FLIGHTS:
        file = sorted((shared_data / flight / "images").iterdir())[4]
        image = cv2.resize(cv2.imread(str(file)), (640, 480), interpolation=cv2.INTER_AREA)
        if kind == "grey":
            image = np.ascontiguousarray(image[..., 1])
        yield cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90, *KINDS[kind]])[1].tobytes()


def hurt(data: bytes, damage: str, rng: np.random.Generator) -> bytes:
    """Damage the file within its last scan, its markers left alone by intent."""
    start = data.rindex(b"\xff\xda") if damage == "bit" else data.index(b"\xff\xda")
    at = int(rng.integers(start + 14, len(data) - 600))
    if damage == "bit":
        return data[:at] + bytes([data[at] ^ 1 << int(rng.integers(8))]) + data[at + 1 :]
    if damage == "zeros":
        return data[:at] + bytes(64) + data[at + 64 :]
    if damage == "noise":
        return data[:at] + rng.bytes(16) + data[at + 16 :]
    return data[:at] + data[at + (1 if damage == "lost_byte" else 512) :]


@pytest.mark.parametrize("kind", KINDS)
def test_corrupt_is_what_libjpeg_warns_of(shared_data, kind, record_property, capfd):
    rng = np.random.default_rng(11)
    warned, counted, tried, disagree = Counter(), Counter(), Counter(), []
    for whole in encoded(shared_data, kind):
        assert as_libjpeg_says(whole) == ""
        decode_image(whole)
        for damage in DAMAGES * TRIES:
            data = hurt(whole, damage, rng)
            says = as_libjpeg_says(data)
            tried[damage] += 1
            warned[damage] += bool(says)
            for color in ("mono", "rgb"):
                try:
                    decode_image(data, color)
                    refused = ""
                except FrameError as error:
                    refused = error.reason
                if refused != ("corrupt" if says else ""):
                    disagree.append((damage, color, says, refused))
            counted[damage] += bool(refused)
    for damage in DAMAGES:
        record_property(f"{damage}_warned_of", warned[damage] / tried[damage])
        record_property(f"{damage}_corrupt", counted[damage] / tried[damage])
    assert capfd.readouterr().err == ""
    shares = ", ".join(f"{d} {counted[d]} of {warned[d]} of {tried[d]}" for d in DAMAGES)
    with capfd.disabled():
        print(f"\n{kind}: corrupt, of those warned of, of all damaged: {shares}")
    assert not disagree
    # Lost packets are what a radio link gives; without warnings the test could not fail.
    assert warned["lost_packet"] > 0.5 * tried["lost_packet"]
    assert 0.3 * tried.total() < warned.total() < tried.total()

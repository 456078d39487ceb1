"""Image files follow the rules of frames: scaling, orientation, bounds, damage."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import cv2
import hostile_images as hostile
import numpy as np
import pytest

from gps_denied_inference.errors import FrameError, StorageError
from gps_denied_inference.images.compressed import compressed_to_array
from gps_denied_inference.images.files import read_image
from gps_denied_inference.images.raw import image_to_array

RNG = np.random.default_rng(5)
BGR = cv2.GaussianBlur(RNG.integers(0, 256, (48, 70, 3), dtype=np.uint8), (0, 0), 2)
THERMAL = BGR[..., 1].astype(np.uint16) * 20 + 3000


@pytest.mark.parametrize("scaling", ["percentile", "minmax", "full"])
@pytest.mark.parametrize("extension", [".tiff", ".png"])
def test_a_thermal_file_is_what_the_raw_topic_gives(
    tmp_path: Path, extension: str, scaling
) -> None:
    file = tmp_path / f"map{extension}"
    file.write_bytes(hostile.encode(extension, THERMAL))
    raw = SimpleNamespace(
        height=48, width=70, step=140, encoding="mono16", is_bigendian=0, data=THERMAL.tobytes()
    )
    np.testing.assert_array_equal(
        read_image(file, "mono", scaling), image_to_array(raw, "mono", scaling)
    )


def test_orientation_is_ignored_as_on_a_topic(tmp_path: Path) -> None:
    data = hostile.turned(hostile.encode(".jpg", BGR))
    (tmp_path / "turned.jpg").write_bytes(data)
    frame = SimpleNamespace(format="jpeg", data=data)
    got = read_image(tmp_path / "turned.jpg", "rgb")
    np.testing.assert_array_equal(got, compressed_to_array(frame, "rgb"))
    assert got.shape == (48, 70, 3)


@pytest.mark.parametrize("change", [lambda data: data[:-200], hostile.damaged])
def test_damage_is_refused_with_the_files_name(tmp_path: Path, change) -> None:
    (tmp_path / "torn.jpg").write_bytes(change(hostile.encode(".jpg", BGR)))
    with pytest.raises(FrameError, match=r"torn\.jpg: JPEG") as refusal:
        read_image(tmp_path / "torn.jpg")
    assert refusal.value.reason == "corrupt"


def test_too_many_pixels_are_refused(tmp_path: Path) -> None:
    (tmp_path / "map.png").write_bytes(hostile.png(9999, 10000, 16))
    with pytest.raises(FrameError, match=r"map\.png: .*9999 x 10000 px.*max_image_pixels"):
        read_image(tmp_path / "map.png")


def test_only_regular_files_of_a_sane_size_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(StorageError, match="pipe.png"):
        read_image(tmp_path / "pipe.png")
    with pytest.raises(StorageError, match="/dev/zero"):
        read_image(Path("/dev/zero"))
    with pytest.raises(StorageError, match="absent.png"):
        read_image(tmp_path / "absent.png")
    with pytest.raises(StorageError):
        read_image(tmp_path)
    with pytest.raises(StorageError):
        read_image(tmp_path / "nul\0.png")
    with open(tmp_path / "sparse.png", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(FrameError, match="sparse.png has 1099511627776 bytes") as refusal:
        read_image(tmp_path / "sparse.png")
    assert refusal.value.reason == "too_large"

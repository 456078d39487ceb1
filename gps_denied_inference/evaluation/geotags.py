"""Where a photograph says it was taken: EXIF and XMP, read by Pillow."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gps_denied_inference.errors import FrameError

_EXIF, _GPS = 0x8769, 0x8825
_FOCAL_35MM = 0xA405
_DATE = 0x9003
_NUMBER = r"[-+]?\d+(?:\.\d+)?"


@dataclass(frozen=True)
class Geotags:
    """What a photograph's tags say; None where they do not.

    Attributes:
        lat, lon: degrees WGS84.
        height: m above where it took off.
        yaw: degrees clockwise from north, of the gimbal if there is one.
        pitch: degrees, of the gimbal; -90 looks straight down.
        focal: focal length over the image's longer side.
        taken: when, as EXIF writes it.
    """

    lat: float | None
    lon: float | None
    height: float | None
    yaw: float | None
    pitch: float | None
    focal: float | None
    taken: str


def read_geotags(path: Path) -> Geotags:
    """Read a photograph's tags.

    Raises:
        FrameError: the file is no image.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            exif = image.getexif()
            own, gps = exif.get_ifd(_EXIF), exif.get_ifd(_GPS)
            xmp = image.info.get("xmp", b"")
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError) as error:
        raise FrameError(f"image file {path}: {error}") from error
    text = xmp.decode("utf-8", "replace") if isinstance(xmp, bytes) else str(xmp)
    focal = own.get(_FOCAL_35MM)
    yaw = _tag(text, "GimbalYawDegree")
    return Geotags(
        lat=_degrees(gps, 1, 2, "S"),
        lon=_degrees(gps, 3, 4, "W"),
        height=_tag(text, "RelativeAltitude"),
        yaw=yaw if yaw is not None else _tag(text, "FlightYawDegree"),
        pitch=_tag(text, "GimbalPitchDegree"),
        focal=float(focal) / 36.0 if focal else None,
        taken=str(own.get(_DATE, "")),
    )


def _tag(xmp: str, name: str) -> float | None:
    """Return a number of the XMP packet, written as an attribute or as an element."""
    found = re.search(rf":{name}\s*(?:=\s*[\"']|>)\s*({_NUMBER})", xmp)
    return float(found.group(1)) if found else None


def _degrees(gps: Any, side: int, value: int, negative: str) -> float | None:
    try:
        degrees, minutes, seconds = (float(part) for part in gps[value])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    size = degrees + minutes / 60.0 + seconds / 3600.0
    return -size if str(gps.get(side, "")).upper().startswith(negative) else size

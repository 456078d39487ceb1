"""What no single setting can be checked for: settings that depend on each other."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gps_denied_inference.errors import InvalidParameterError
from gps_denied_inference.runtimes.checks import parse_device
from gps_denied_inference.runtimes.specs import IMAGE_SIDE_STEP, image_side_bound

if TYPE_CHECKING:
    from gps_denied_inference.settings import Settings

MOST_CAMERAS = 16
"""As many images as an engine takes at a time."""
_NAME = re.compile(r"[A-Za-z](_?[A-Za-z0-9])*\Z")


def check_together(settings: Settings) -> None:
    """Check settings against each other.

    Raises:
        InvalidParameterError: names the parameter, the value and the bound.
    """
    if settings.device != "auto":
        try:
            parse_device(settings.device)
        except InvalidParameterError as error:
            bound = f"'auto', {error.bound}"
            raise InvalidParameterError("device", settings.device, bound) from None
    for name, size in (
        ("image_width", settings.image_width),
        ("image_height", settings.image_height),
    ):
        if size % IMAGE_SIDE_STEP:
            raise InvalidParameterError(name, size, image_side_bound())
    _check_cameras(settings)
    if settings.require_signed_engines and not settings.engine_public_key:
        raise InvalidParameterError(
            "engine_public_key", "", "a PEM file while require_signed_engines is true"
        )
    if settings.thermal_source == "replay" and not settings.thermal_replay_file:
        raise InvalidParameterError(
            "thermal_replay_file", "", "a recording while thermal_source is 'replay'"
        )
    if settings.reference_angles > 1 and settings.geometry == "none":
        raise InvalidParameterError(
            "reference_angles", settings.reference_angles, "1 while geometry is 'none'"
        )
    if settings.keeps_tracks and settings.detection_interval > 1:
        most = 1 if settings.geometry == "none" else settings.max_followed_frames + 1
        if settings.detection_interval > most:
            raise InvalidParameterError(
                "detection_interval",
                settings.detection_interval,
                "1 while geometry is 'none', else at most max_followed_frames + 1 = "
                f"{settings.max_followed_frames + 1}",
            )
    if settings.task == "localize" and not settings.map_file:
        raise InvalidParameterError("map_file", "", "a map while task is 'localize'")
    if settings.task == "localize" and settings.geometry == "none":
        raise InvalidParameterError(
            "geometry", settings.geometry, "'homography' or 'fundamental' while task is 'localize'"
        )
    if settings.thermal_reduced_keypoints >= settings.max_keypoints:
        raise InvalidParameterError(
            "thermal_reduced_keypoints",
            settings.thermal_reduced_keypoints,
            f"less than max_keypoints = {settings.max_keypoints}",
        )


def _check_cameras(settings: Settings) -> None:
    names = settings.cameras
    if names == ("",):
        if settings.engine_batch > 1:
            raise InvalidParameterError("engine_batch", settings.engine_batch, "1 for one camera")
        return
    for name in names:
        if not _NAME.match(name):
            raise InvalidParameterError(
                "camera_names",
                list(names),
                "names of letters, digits and single underscores that begin with a letter",
            )
    if len(set(names)) < len(names) or len(names) > MOST_CAMERAS:
        raise InvalidParameterError(
            "camera_names", list(names), f"at most {MOST_CAMERAS} names, each of them once"
        )
    if settings.engine_batch > len(names):
        raise InvalidParameterError(
            "engine_batch",
            settings.engine_batch,
            f"no more than the {len(names)} cameras of camera_names",
        )
    if settings.task == "localize" and len(names) > 1:
        raise InvalidParameterError(
            "camera_names",
            list(names),
            "one camera while task is 'localize': the others need a node of their own, with task "
            "'track'",
        )

"""What no single setting can be checked for: settings that depend on each other."""

from __future__ import annotations

import re

from gps_denied_inference.errors import InvalidParameterError
from gps_denied_inference.parameter import Table
from gps_denied_inference.runtimes.checks import parse_device
from gps_denied_inference.runtimes.specs import IMAGE_SIDE_STEP, image_side_bound

MOST_CAMERAS = 16
"""As many images as an engine takes at a time."""
_NAME = re.compile(r"[A-Za-z](_?[A-Za-z0-9])*\Z")


class SettingsRules(Table):
    """What the rows of ``settings.Settings`` must be together; the fields that this concerns."""

    task: str
    camera_names: tuple[str, ...]
    device: str
    image_width: int
    image_height: int
    max_keypoints: int
    engine_batch: int
    require_signed_engines: bool
    engine_public_key: str
    geometry: str
    reference_angles: int
    detection_interval: int
    max_followed_frames: int
    map_file: str
    thermal_source: str
    thermal_replay_file: str
    thermal_reduced_keypoints: int

    @property
    def cameras(self) -> tuple[str, ...]:
        """The cameras' names; one that is empty where there is one camera without a name."""
        return self.camera_names or ("",)

    @property
    def keeps_tracks(self) -> bool:
        """True for the tasks that follow features from frame to frame."""
        return self.task in ("track", "localize")

    def validate(self) -> None:
        """Check settings against each other.

        Raises:
            InvalidParameterError: names the parameter, the value and the bound.
        """
        if self.device != "auto":
            try:
                parse_device(self.device)
            except InvalidParameterError as error:
                bound = f"'auto', {error.bound}"
                raise InvalidParameterError("device", self.device, bound) from None
        for name, size in (
            ("image_width", self.image_width),
            ("image_height", self.image_height),
        ):
            if size % IMAGE_SIDE_STEP:
                raise InvalidParameterError(name, size, image_side_bound())
        self._check_cameras()
        if self.require_signed_engines and not self.engine_public_key:
            raise InvalidParameterError(
                "engine_public_key", "", "a PEM file while require_signed_engines is true"
            )
        if self.thermal_source == "replay" and not self.thermal_replay_file:
            raise InvalidParameterError(
                "thermal_replay_file", "", "a recording while thermal_source is 'replay'"
            )
        if self.reference_angles > 1 and self.geometry == "none":
            raise InvalidParameterError(
                "reference_angles", self.reference_angles, "1 while geometry is 'none'"
            )
        if self.keeps_tracks and self.detection_interval > 1:
            most = 1 if self.geometry == "none" else self.max_followed_frames + 1
            if self.detection_interval > most:
                raise InvalidParameterError(
                    "detection_interval",
                    self.detection_interval,
                    "1 while geometry is 'none', else at most max_followed_frames + 1 = "
                    f"{self.max_followed_frames + 1}",
                )
        if self.task == "localize" and not self.map_file:
            raise InvalidParameterError("map_file", "", "a map while task is 'localize'")
        if self.task == "localize" and self.geometry == "none":
            raise InvalidParameterError(
                "geometry", self.geometry, "'homography' or 'fundamental' while task is 'localize'"
            )
        if self.thermal_reduced_keypoints >= self.max_keypoints:
            raise InvalidParameterError(
                "thermal_reduced_keypoints",
                self.thermal_reduced_keypoints,
                f"less than max_keypoints = {self.max_keypoints}",
            )

    def _check_cameras(self) -> None:
        names = self.cameras
        if names == ("",):
            if self.engine_batch > 1:
                raise InvalidParameterError("engine_batch", self.engine_batch, "1 for one camera")
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
        if self.engine_batch > len(names):
            raise InvalidParameterError(
                "engine_batch",
                self.engine_batch,
                f"no more than the {len(names)} cameras of camera_names",
            )
        if self.task == "localize" and len(names) > 1:
            raise InvalidParameterError(
                "camera_names",
                list(names),
                "one camera while task is 'localize': the others need a node of their own, with "
                "task 'track'",
            )

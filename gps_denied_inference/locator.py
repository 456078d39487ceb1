"""Localization for one set of settings: map, engines, search, flight. No ROS.

It has engines of its own, beside those of the session: a search takes longer than a frame, and
neither may wait for the other.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from gps_denied_inference.errors import ConfigurationError, StorageError
from gps_denied_inference.maps.store import MapStore
from gps_denied_inference.maps.tiles import MapInfo
from gps_denied_inference.networks import Networks
from gps_denied_inference.pipeline.camera import CameraModel
from gps_denied_inference.pipeline.localization.fix import Attempt
from gps_denied_inference.pipeline.localization.hunt import PAIRS_AT_ONCE
from gps_denied_inference.pipeline.localization.localizer import FrameLocalizer, Search
from gps_denied_inference.pipeline.localization.plan import Optics
from gps_denied_inference.pipeline.localization.prior import Prior
from gps_denied_inference.runtimes.contract import Progress
from gps_denied_inference.settings import Settings
from gps_denied_inference.storage.files import user_path


class Locator:
    """A map and what finds frames on it.

    ``locate`` belongs to one thread. Opening and closing exclude it.

    Args:
        settings: valid, with ``map_file``.
        progress: told what is being prepared.

    Attributes:
        store: the map.

    Raises:
        ConfigurationError: no map is named, or it was made by another network.
        MapError, StorageError: the map cannot be used.
        GpsDeniedInferenceError: an engine cannot be had.
    """

    def __init__(self, settings: Settings, progress: Progress | None = None) -> None:
        if not settings.map_file:
            raise ConfigurationError(
                "task 'localize' needs map_file: prepare a map with 'gdi map prepare'"
            )
        try:
            path = user_path(settings.map_file)
        except StorageError as error:
            raise ConfigurationError(f"map_file {error}") from error
        self.store = MapStore(path)
        self._networks: Networks | None = None
        self._localizer: FrameLocalizer | None = None
        try:
            self._open(settings, progress)
        except BaseException:
            self.close()
            raise

    def _open(self, settings: Settings, progress: Progress | None) -> None:
        info = self.store.info
        if (info.model, info.color) != (settings.model, settings.color):
            raise ConfigurationError(
                f"map_file '{self.store.path}' was made with model '{info.model}' and color "
                f"'{info.color}', the node runs '{settings.model}' and '{settings.color}': set "
                "them alike, or prepare the map again"
            )
        networks = self._networks = Networks(
            dataclasses.replace(
                settings,
                image_width=info.tile_px,
                image_height=info.tile_px,
                detection_threshold=info.detection_threshold,
                threads=settings.localization_threads,
            ),
            progress,
        )
        extractor = networks.extractor(info.max_keypoints)
        if extractor.model_sha256 != info.model_sha256:
            raise ConfigurationError(
                f"map_file '{self.store.path}' was made with other weights of '{info.model}' "
                f"({info.model_sha256[:12]}) than run here ({extractor.model_sha256[:12]}): "
                "prepare the map again"
            )
        matcher = networks.matcher(settings.localization_matcher, info.max_keypoints, PAIRS_AT_ONCE)
        self.store.preload()
        size = (info.tile_px, info.tile_px)
        search = Search(map_sigma=settings.map_sigma)
        self._localizer = FrameLocalizer(
            self.store, extractor, matcher, size, self.store.describe, search,
            settings.localization_threads,
        )  # fmt: skip

    @property
    def info(self) -> MapInfo:
        """What holds for the whole map."""
        return self.store.info

    @property
    def running_since(self) -> float | None:
        """Monotonic s at which the forward pass that runs now began; None = none runs."""
        return self._networks.running_since if self._networks is not None else None

    def locate(
        self, image: npt.NDArray[np.uint8], prior: Prior, camera: CameraModel | None
    ) -> Attempt:
        """Search one frame.

        Args:
            image: uint8 (H, W) or (H, W, 3), as ``color`` says.
            prior: what is known.
            camera: the lens; None = a wide lens of a drone is assumed.

        Raises:
            FrameError, InferenceError, DeviceOutOfMemoryError, MapError.
        """
        if self._localizer is None:
            raise ValueError("the locator is closed")
        return self._localizer.locate(image, prior, optics_of(image, camera))

    def close(self) -> None:
        """Give everything back. May be called more than once."""
        localizer, self._localizer = self._localizer, None
        if localizer is not None:
            localizer.close()
        networks, self._networks = self._networks, None
        if networks is not None:
            networks.close()
        self.store.close()


def optics_of(image: npt.NDArray[np.uint8], camera: CameraModel | None) -> Optics:
    """Return the lens of a frame; a common one where it is not known or is of another size."""
    height, width = image.shape[:2]
    if camera is None or (camera.width, camera.height) != (width, height):
        return Optics.assumed(width, height)
    return Optics(camera)


def width_of(optics: Optics) -> float:
    """Return the frame's longer side on the normalised image plane."""
    camera = optics.camera
    return float(max(camera.width / camera.matrix[0, 0], camera.height / camera.matrix[1, 1]))

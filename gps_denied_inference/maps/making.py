"""Tiles made of a raster and a network, and the codebook made of some of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from gps_denied_inference.errors import MapError
from gps_denied_inference.maps.codec import Encoded, encode
from gps_denied_inference.maps.descriptor import GlobalDescriptor
from gps_denied_inference.maps.sources.choose import open_raster
from gps_denied_inference.maps.sources.raster import Mask, Raster
from gps_denied_inference.maps.tiles import MapInfo, Place, grid
from gps_denied_inference.networks import Networks
from gps_denied_inference.pipeline.features import Features
from gps_denied_inference.settings import Settings

LEAST_SHOWN = 0.3
"""Share of a tile that has to show something."""
LEAST_FEATURES = 8
EDGE = 8
"""px around what shows nothing in which no feature is kept."""
SAMPLES = 48
"""Tiles that the codebook is made of."""
_SEED = 20_250


@dataclass(frozen=True)
class Source:
    """What :func:`~.sources.choose.open_raster` takes."""

    path: Path
    corners: Path | None = None
    gsd: float | None = None
    origin: tuple[float, float] | None = None

    def open(self) -> Raster:
        """Open it."""
        return open_raster(self.path, self.corners, self.gsd, self.origin)


Made = tuple[Place, Encoded | None, str]
"""A place, its tile, and where there is none the reason."""


class TileMaker:
    """Makes tiles of one raster with one engine.

    Args:
        source: the raster.
        info: of the map.
        settings: of the engine, which sees whole tiles.
    """

    def __init__(self, source: Source, info: MapInfo, settings: Settings) -> None:
        self._info = info
        self._raster = source.open()
        try:
            self._networks = Networks(settings)
            self._extractor = self._networks.extractor(settings.max_keypoints)
        except BaseException:
            self._raster.close()
            raise

    def make(self, place: Place, descriptor: GlobalDescriptor) -> Made:
        """Make one tile.

        Raises:
            MapError: the raster cannot be read there.
        """
        found = self.features(place)
        if isinstance(found, str):
            return place, None, found
        return place, encode(place.id, found, descriptor.describe_tile(found)), ""

    def features(self, place: Place) -> Features | str:
        """Return what the network sees at a place, or why there is no tile.

        Raises:
            MapError: the raster cannot be read there.
        """
        info = self._info
        image, shown = self._raster.read(info.frame, place.east, place.north, place.size, place.gsd)
        if shown.mean() < LEAST_SHOWN:
            return "nodata"
        if info.color == "mono":
            image = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
        features = _on_ground(self._extractor.extract(image), shown)
        if features.count < LEAST_FEATURES:
            return "featureless"
        return features

    def close(self) -> None:
        """Give raster and engine back."""
        self._networks.close()
        self._raster.close()


def _on_ground(features: Features, shown: Mask) -> Features:
    """Drop features where the tile shows nothing, and along the edge of that."""
    if shown.all():
        return features
    kernel = np.ones((2 * EDGE + 1, 2 * EDGE + 1), np.uint8)
    padded = cv2.copyMakeBorder(shown.astype(np.uint8), EDGE, EDGE, EDGE, EDGE,
                                cv2.BORDER_REPLICATE)  # fmt: skip
    inside = cv2.erode(padded, kernel)[EDGE:-EDGE, EDGE:-EDGE] > 0
    at = np.rint(features.keypoints).astype(int)
    kept = inside[
        np.clip(at[:, 1], 0, shown.shape[0] - 1), np.clip(at[:, 0], 0, shown.shape[1] - 1)
    ]
    return Features(
        features.keypoints[kept], features.scores[kept], features.descriptors[kept],
        features.width, features.height, features.model, features.model_sha256,
    )  # fmt: skip


def train(source: Source, info: MapInfo, settings: Settings) -> GlobalDescriptor:
    """Make the codebook of tiles all over the map: the same ones whoever does it.

    Args:
        source: the raster.
        info: of the map.
        settings: of the engine.

    Raises:
        MapError: no tile shows anything, or the raster cannot be read.
    """
    places = grid(info)
    order = np.random.Generator(np.random.PCG64(_SEED)).permutation(len(places))
    samples: list[Features] = []
    maker = TileMaker(source, info, settings)
    try:
        for id in order:
            found = maker.features(places[int(id)])
            if not isinstance(found, str):
                samples.append(found)
            if len(samples) == SAMPLES:
                break
    finally:
        maker.close()
    if not samples:
        raise MapError(f"the map has no tiles: {info.source} shows nothing at these levels")
    return GlobalDescriptor.train(samples)

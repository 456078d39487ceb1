"""What is to be searched for one frame, given its prior: heights, headings, level and region."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gps_denied_inference.pipeline.camera import CameraModel
from gps_denied_inference.pipeline.localization.candidates import Region
from gps_denied_inference.pipeline.localization.pose import Known
from gps_denied_inference.pipeline.localization.prior import Prior, rotation
from gps_denied_inference.pipeline.localization.similarity import Bounds
from gps_denied_inference.pipeline.localization.tiles import MapInfo

HEADING_STEP = math.radians(45.0)
"""Between headings that are tried: the networks bear half of it and more."""
ONE_HEADING = math.radians(30.0)
"""Two sigmas of heading up to which one view serves."""
FINE_HEADING = math.radians(6.0)
FINE_SCALE = 0.08
"""Sigmas above which a frame that was not found is looked at again, turned and scaled."""
UNKNOWN_TILT = math.radians(5.0)
"""Sigma of the tilt of a camera of which only is known that it looks down."""
UNKNOWN_HEIGHTS = (0.5, 0.7, 1.0)
"""Shares of a tile that the frame's longer side is tried at when the height is not known."""
SCALE_SLACK = 0.05
"""Share of the scale that tilt and relief may take, besides the prior's sigma."""
MAP_SIGMA_PX = 1.0
"""px of the tile: what a good orthophoto is off at one spot."""
MOST_SCALE = 1.8
"""Factor of scale beyond which the networks see nothing in common."""


@dataclass(frozen=True, eq=False)
class Optics:
    """The lens.

    Attributes:
        camera: of the frames.
        focal_sigma: of its focal length, as a share; a calibrated lens has 0.005.
    """

    camera: CameraModel
    focal_sigma: float = 0.005

    @classmethod
    def of_focal(cls, width: int, height: int, focal: float, focal_sigma: float) -> Optics:
        """Return an ideal lens.

        Args:
            width, height: px of its frames.
            focal: px, and its sigma as a share.
            focal_sigma: see there.
        """
        k = [focal, 0.0, (width - 1) / 2.0, 0.0, focal, (height - 1) / 2.0, 0.0, 0.0, 1.0]
        return cls(CameraModel.from_info("", k, [], width, height), focal_sigma)

    @classmethod
    def assumed(cls, width: int, height: int) -> Optics:
        """Return what a drone's camera commonly has, for frames of which nothing is known.

        Focal lengths of their wide lenses are 0.6 to 0.9 of the image's longer side.
        """
        return cls.of_focal(width, height, 0.74 * max(width, height), 0.13)


@dataclass(frozen=True, eq=False)
class Assumption:
    """One view to be made of the frame."""

    height: float
    heading: float


@dataclass(frozen=True, eq=False)
class Plan:
    """A search.

    Attributes:
        level: of the map.
        assumptions: heights and headings that the frame is seen under.
        further: those between and beyond, for a frame that was not found under the first.
        bounds: of the similarity between such a view and the map.
        region: where the axis may meet the ground; None = anywhere.
        gravity: unit vector in the camera's frame.
        tile_sigma: m, error of the map from one spot to another.
        map_sigma: m, error of the map as a whole.
    """

    level: int
    assumptions: tuple[Assumption, ...]
    further: tuple[Assumption, ...]
    bounds: Bounds
    region: Region | None
    gravity: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
    height_share: float
    gravity_sigma: float
    focal_sigma: float
    tile_sigma: float
    map_sigma: float

    def known(self, height: float) -> Known:
        """Return the prior of the pose of a view that was made for ``height``."""
        return Known(
            height,
            self.height_share,
            self.gravity,
            self.gravity_sigma,
            self.focal_sigma,
            math.hypot(self.tile_sigma, self.map_sigma),
        )


def plan(prior: Prior, optics: Optics, info: MapInfo, map_sigma: float = 0.0) -> Plan:
    """Decide what is searched.

    Args:
        prior: what is known.
        optics: the lens.
        info: of the map.
        map_sigma: m, error of the map as a whole, besides one pixel of the tiles from spot to spot.
    """
    camera, gravity = optics.camera, prior.gravity
    side = max(camera.width / camera.matrix[0, 0], camera.height / camera.matrix[1, 1])
    levels = info.levels
    if prior.height is not None and prior.height_sigma is not None:
        heights: Sequence[float] = (prior.height,)
        share = prior.height_sigma / prior.height
        level = _level_for(side * prior.height, info)
        spread = math.hypot(share, optics.focal_sigma)
    else:
        level = int(np.argmax(levels)) if len(levels) else 0
        heights = [info.tile_px * levels[level] * part / side for part in UNKNOWN_HEIGHTS]
        share, spread = 1.0, 0.2
    most = min(MOST_SCALE, math.exp(3.0 * spread + SCALE_SLACK))
    headings, turn = _headings(prior)
    first = tuple(Assumption(h, psi) for h in heights for psi in headings)
    return Plan(
        level,
        first,
        _further(first, prior, spread),
        Bounds(1.0 / most, most, turn),
        _region(prior, heights[-1]),
        gravity,
        share,
        prior.down_sigma if prior.down_sigma is not None else UNKNOWN_TILT,
        optics.focal_sigma,
        MAP_SIGMA_PX * levels[level],
        map_sigma,
    )


def _further(first: Sequence[Assumption], prior: Prior, spread: float) -> tuple[Assumption, ...]:
    """Return views that lie between the first ones where more than one step is uncertain.

    The networks bear a turn of thirty degrees and a third in scale, but see most of what they can
    within half of that.
    """
    if len(first) > 1:
        return tuple(Assumption(a.height, a.heading + HEADING_STEP / 2.0) for a in first)
    (only,) = first
    sigma = prior.heading_sigma or 0.0
    turns = (-1.4 * sigma, 0.0, 1.4 * sigma) if sigma > FINE_HEADING else (0.0,)
    scales = (-1.2 * spread, 0.0, 1.2 * spread) if spread > FINE_SCALE else (0.0,)
    return tuple(
        Assumption(only.height * math.exp(scale), only.heading + turn)
        for scale in scales
        for turn in turns
        if scale or turn
    )


def _level_for(footprint: float, info: MapInfo) -> int:
    """Return the level whose tiles are nearest to the frame's longer side, rather wider."""
    sides = np.array([info.tile_px * gsd for gsd in info.levels])
    return int(np.argmin(np.abs(np.log(sides / (1.15 * footprint)))))


def _headings(prior: Prior) -> tuple[list[float], float]:
    """Return the headings to try, and how far a right one may be off."""
    if prior.heading is None or prior.heading_sigma is None:
        return [index * HEADING_STEP for index in range(8)], math.radians(35.0)
    reach = 2.0 * prior.heading_sigma
    if reach <= ONE_HEADING:
        most = min(3.0 * prior.heading_sigma + math.radians(5.0), math.radians(45.0))
        return [prior.heading], most
    count = min(8, math.ceil(2.0 * reach / HEADING_STEP))
    first = prior.heading - (count - 1) / 2.0 * HEADING_STEP
    return [first + index * HEADING_STEP for index in range(count)], math.radians(35.0)


def _region(prior: Prior, height: float) -> Region | None:
    """Return where the axis may meet the ground."""
    if prior.position is None or prior.position_sigma is None:
        return None
    tilt_sigma = prior.down_sigma if prior.down_sigma is not None else UNKNOWN_TILT
    sigma = math.hypot(prior.position_sigma, height * math.tan(min(tilt_sigma, 1.0)))
    centre = complex(*prior.position)
    lean = height * math.tan(math.acos(float(np.clip(prior.gravity[2], 0.1, 1.0))))
    if prior.heading is None:
        return Region(centre, math.hypot(sigma, lean))
    ahead = rotation(prior.heading, prior.gravity)[:, 2]
    reach = height / max(-ahead[2], 0.1)
    return Region(centre + complex(reach * ahead[0], reach * ahead[1]), sigma)

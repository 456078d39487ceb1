"""Which tiles are worth the matcher's time.

Three sieves, each a hundred times dearer a tile than the one before: the prior's position, the
global descriptor, and a vote of nearest neighbours among the local features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gps_denied_inference.pipeline.features import Features, FloatArray
from gps_denied_inference.pipeline.localization.placing import Sight
from gps_denied_inference.pipeline.localization.tiles import Tile, TileSource, ground_points

Ids = npt.NDArray[np.int64]
Describe = Callable[[Features], FloatArray]
"""Global descriptor (D,) of a view's features, as the map's tiles have it."""

ALIKENESS = 20.0
"""Weight of the cosine of global descriptors against the prior's log likelihood."""
VOTE_SHARPNESS = 8.0
"""A neighbour at cosine c votes with exp(sharpness (c - 1)): 0.82 counts a quarter."""
CELL = 0.06
"""Side of a cell of the vote, as a share of the tile."""


@dataclass(frozen=True)
class Region:
    """Where the axis may meet the ground.

    Attributes:
        centre: m, map ENU.
        sigma: m, along each axis.
    """

    centre: complex
    sigma: float


def within(
    source: TileSource, level: int, region: Region | None
) -> tuple[Ids, npt.NDArray[np.float64]]:
    """Return the tiles (N,) that the region reaches and their log likelihood (N,).

    Three sigmas and half a tile count as reached: a frame is best matched with the tile whose
    middle it shows.
    """
    ids, centres = source.centres(level)
    if region is None:
        return ids, np.zeros(len(ids))
    side = source.info.tile_px * source.info.levels[level]
    east = np.maximum(np.abs(centres[:, 0] - region.centre.real) - side / 4.0, 0.0)
    north = np.maximum(np.abs(centres[:, 1] - region.centre.imag) - side / 4.0, 0.0)
    reached = np.maximum(east, north) <= 3.0 * region.sigma + side / 4.0
    likelihood = -0.5 * (east**2 + north**2) / (region.sigma**2 + (side / 4.0) ** 2)
    return ids[reached], likelihood[reached]


def narrow(
    source: TileSource,
    level: int,
    region: Region | None,
    sights: Sequence[Sight],
    describe: Describe | None,
    most: int,
) -> Ids:
    """Return at most ``most`` tiles: the prior's likelihood and the global descriptor together."""
    ids, score = within(source, level, region)
    if len(ids) <= most:
        return ids
    if describe is not None:
        known, descriptors = source.descriptors(level)
        ours = np.stack([describe(sight.features) for sight in sights])
        alike = (descriptors @ ours.T).max(axis=1)
        order = np.argsort(known, kind="stable")
        score = score + ALIKENESS * alike[order[np.searchsorted(known, ids, sorter=order)]]
    best = np.argpartition(-score, most)[:most]
    return np.asarray(ids[best[np.argsort(-score[best], kind="stable")]], np.int64)


def votes(
    sight: Sight, tiles: Sequence[Tile], voters: Executor | None = None
) -> npt.NDArray[np.float64]:
    """Say for each tile how strongly mutual nearest neighbours of it and a view point to one place.

    View and tile are both north-up and of one scale: right pairs differ by one displacement, to
    within what heading and height are off. The fullest cell of displacements is the vote.

    Args:
        sight: the view.
        tiles: T.
        voters: what compares descriptors side by side; None: one tile after the other.

    Returns:
        (T,) votes.
    """
    each = voters.map if voters is not None else map
    pairs = list(each(lambda tile: _mutual(sight, tile), tiles))
    if not pairs:
        return np.zeros(0)
    query, weight = (np.concatenate(part) for part in list(zip(*pairs, strict=True))[::2])
    ground = np.concatenate([
        ground_points(tile, tile.features.keypoints[partner])
        for tile, (_, partner, _) in zip(tiles, pairs, strict=True)
    ])  # fmt: skip
    number = np.repeat(np.arange(len(tiles)), [len(one) for one, _, _ in pairs])
    side = np.array([max(tile.width, tile.height) * tile.gsd for tile in tiles])
    corner = np.array([[tile.east, tile.north - tile.height * tile.gsd] for tile in tiles])
    seen = sight.plane[query].view(np.float64).reshape(-1, 2)
    cells = round(1.0 / CELL) + 2
    at = np.floor((ground - seen - corner[number]) / (CELL * side[number, None])).astype(np.int64)
    at += 1
    inside = ((at >= 0) & (at < cells)).all(axis=1)
    column, row = at[inside].T
    # One field above the other, each with a row and a column of zeros around which cells pool.
    field = np.zeros((len(tiles), cells + 1, cells + 1), np.float32)
    place = (number[inside] * (cells + 1) + row) * (cells + 1) + column
    field += np.bincount(place, weight[inside], field.size).reshape(field.shape)
    pooled = field.copy()
    pooled[:, 1:] += field[:, :-1]
    pooled[:, :, 1:] += pooled[:, :, :-1].copy()
    return np.asarray(pooled.max(axis=(1, 2)), np.float64)


def _mutual(
    sight: Sight, tile: Tile
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """Return the keypoints of a view (M,) and of a tile (M,) that are each other's nearest.

    The third is what each pair's likeness counts in the vote, (M,).
    """
    ours, theirs = sight.features.descriptors, tile.features.descriptors
    if len(ours) == 0 or len(theirs) == 0:
        nothing = np.zeros(0, np.intp)
        return nothing, nothing, np.zeros(0, np.float32)
    cosine = ours @ theirs.T
    best = cosine.argmax(axis=1)
    value = cosine[np.arange(len(ours)), best]
    query = np.flatnonzero(value == cosine.max(axis=0)[best])
    weight = np.exp(VOTE_SHARPNESS * (value[query] - 1.0))
    return query, best[query], np.asarray(weight, np.float32)


def shortlist(
    sights: Sequence[Sight], tiles: Iterable[Tile], most: int, voters: Executor | None = None
) -> list[tuple[Sight, Tile]]:
    """Return the pairs of view and tile with the most votes, best first.

    Args:
        sights: views.
        tiles: all are voted on, where there are more than ``most`` pairs.
        most: pairs.
        voters: what votes side by side; None votes one after the other.
    """
    tiles = list(tiles)
    pairs = [(sight, tile) for tile in tiles for sight in sights]
    if len(pairs) <= most:
        return pairs
    voted = np.stack([votes(sight, tiles, voters) for sight in sights], axis=1).ravel()
    return [pairs[index] for index in np.argsort(-voted, kind="stable")[:most]]

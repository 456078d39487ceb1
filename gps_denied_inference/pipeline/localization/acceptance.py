"""Whether a place found from one frame is believed.

A wrong place does harm that no fix can mend, so a place must pass every rule. Chance alone is no
measure: repeated fields, roofs and roads agree with a wrong place far better than chance would.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gps_denied_inference.pipeline import acceptance as chance
from gps_denied_inference.pipeline.acceptance import Evidence, inside
from gps_denied_inference.pipeline.localization.placing import (
    THRESHOLD_PX,
    Place,
    nearest_each,
)

_KNOWN: weakref.WeakKeyDictionary[Place, float] = weakref.WeakKeyDictionary()
"""Confidence of places that are still looked at. A place holds its frame's view and features."""


@dataclass(frozen=True)
class Rules:
    """What a place must show.

    Attributes:
        least_inliers: agreeing keypoints.
        least_confidence: -log10 of how many such places chance would give in this search.
        least_lead: times the agreeing keypoints of the second place.
        least_cells: of a 4 x 4 grid over the frame that hold agreeing keypoints.
        least_spread: shorter axis of the inliers' spread (2 sigma), as a share of the frame's
            shorter side.
        sure_inliers: agreeing keypoints that settle it, so that no second tile need agree, where
            they are ``sure_lead`` times those of the second place.
        sure_confidence: confidence that does the same.
        sure_lead: see there.
    """

    least_inliers: int = 20
    least_confidence: float = 7.0
    least_lead: float = 1.5
    least_cells: int = 3
    least_spread: float = 0.08
    sure_inliers: int = 40
    sure_confidence: float = 12.0
    sure_lead: float = 2.0


def refusal(place: Place, others: Sequence[Place], searched: int, rules: Rules) -> str | None:
    """Return why a place is not believed, in one word, or None.

    Args:
        place: the best one.
        others: places that lie apart from it.
        searched: pairs of view and tile that were matched.
        rules: what is asked.
    """
    if place.count < rules.least_inliers:
        return "too_few_inliers"
    second = max((other.count for other in others), default=0)
    found = confidence(place, searched)
    sure = is_sure(place, second, found, rules)
    if not sure and found < rules.least_confidence:
        return "by_chance"
    if place.count < rules.least_lead * second:
        return "ambiguous"
    cells, spread = _spread(place)
    if cells < rules.least_cells or spread < rules.least_spread:
        return "in_one_spot"
    if not sure and len(place.tiles) < 2 and place.silent:
        return "neighbours_disagree"
    return None


def is_sure(place: Place, second: int, found: float, rules: Rules) -> bool:
    """Tell whether a place leaves nothing to look for.

    Args:
        place: with at least the rules' inliers.
        second: agreeing keypoints of the next place.
        found: the place's confidence.
        rules: what is asked.
    """
    leads = place.count >= rules.sure_lead * second
    return leads and (place.count >= rules.sure_inliers or found >= rules.sure_confidence)


def confidence(place: Place, searched: int) -> float:
    """Return -log10 of how many places as good as this one chance would give in the whole search.

    Args:
        place: with all pairs of its tiles.
        searched: pairs of view and tile that were matched, each of which could have given one.
    """
    return _alone(place) - math.log10(max(searched, 1))


def _alone(place: Place) -> float:
    """Return the confidence of a place that was the only one searched."""
    known = _KNOWN.get(place)  # asked for several times while one frame is searched
    if known is None:
        known = _KNOWN[place] = _measured(place)
    return known


def _measured(place: Place) -> float:
    view = place.sight.view
    indices, ground = place.pairs.indices, place.pairs.ground
    residuals = np.abs(place.similarity(place.sight.plane[indices]) - ground)
    rows = nearest_each(indices, residuals, math.inf)
    query = np.asarray(place.sight.features.keypoints[indices[rows]], np.float64)
    corner = complex(ground.real.min(), ground.imag.max())
    offset = (ground[rows] - corner) / place.gsd
    reference = np.column_stack([offset.real, -offset.imag])
    height, width = view.inside.shape
    evidence = Evidence(
        query, reference, (width, height), (float(np.ptp(ground.real)) / place.gsd + 1.0,
        float(np.ptp(ground.imag)) / place.gsd + 1.0), inside(query, (width, height)), joint=True,
    )  # fmt: skip
    return chance.confidence(evidence, _matrix(place, corner), "similarity", THRESHOLD_PX)


def _matrix(place: Place, corner: complex) -> npt.NDArray[np.float64]:
    """Return the similarity (3, 3) from px of the view to px of the map counted from a corner."""
    axis, view = place.sight.view.axis, place.sight.view
    a = place.similarity.a * view.gsd / place.gsd
    b = (place.similarity.b - corner) / place.gsd
    # With y down both planes are conjugated.
    a, b = a.conjugate(), b.conjugate()
    turn = np.array([[a.real, -a.imag], [a.imag, a.real]])
    shift = np.array([b.real, b.imag]) - turn @ axis
    return np.vstack([np.column_stack([turn, shift]), [0.0, 0.0, 1.0]])


def _spread(place: Place) -> tuple[int, float]:
    """Return the cells that hold inliers, and their spread as a share of the frame."""
    inside = np.argwhere(place.sight.view.inside > 0)[:, ::-1]
    if len(inside) == 0:
        return 0, 0.0
    least, most = inside.min(axis=0), inside.max(axis=0)
    span = np.maximum(most - least, 1.0)
    cell = np.clip(((place.keypoints - least) / span * 4.0).astype(np.int64), 0, 3)
    cells = len(np.unique(cell[:, 0] * 4 + cell[:, 1]))
    centred = place.keypoints - place.keypoints.mean(axis=0)
    variance = np.linalg.eigvalsh(centred.T @ centred / len(centred))
    return cells, 2.0 * math.sqrt(max(float(variance[0]), 0.0)) / float(span.min())

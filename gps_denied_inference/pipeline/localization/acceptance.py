"""Whether a place found from one frame is believed.

A wrong place does harm that no fix can mend, so a place must pass every rule. Chance alone is no
measure: repeated fields, roofs and roads agree with a wrong place far better than chance would.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gps_denied_inference.pipeline.localization.placing import THRESHOLD_PX, Place


@dataclass(frozen=True)
class Rules:
    """What a place must show.

    Attributes:
        least_inliers: agreeing keypoints.
        most_false_alarms: log10 of how many such places chance would give in this search.
        least_lead: times the agreeing keypoints of the second place.
        least_cells: of a 4 x 4 grid over the frame that hold agreeing keypoints.
        least_spread: shorter axis of the inliers' spread (2 sigma), as a share of the frame's
            shorter side.
        lonely_inliers: agreeing keypoints from which on no second tile needs to agree.
    """

    least_inliers: int = 20
    most_false_alarms: float = -6.0
    least_lead: float = 1.5
    least_cells: int = 3
    least_spread: float = 0.08
    lonely_inliers: int = 40


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
    if log_false_alarms(place, searched) > rules.most_false_alarms:
        return "by_chance"
    second = max((other.count for other in others), default=0)
    if place.count < rules.least_lead * second:
        return "ambiguous"
    cells, spread = _spread(place)
    if cells < rules.least_cells or spread < rules.least_spread:
        return "in_one_spot"
    if place.count < rules.lonely_inliers and len(place.tiles) < 2 and place.silent:
        return "neighbours_disagree"
    return None


def log_false_alarms(place: Place, searched: int) -> float:
    """Return log10 of the expected number of places as good as this one if pairs were random.

    A pair agrees by chance with the share of a tile's area that a residual may have. Any two pairs
    of any search may define the similarity.
    """
    side = max(place.sight.view.inside.shape)
    chance = min(0.5, math.pi * THRESHOLD_PX**2 / side**2)
    pairs = max(place.pairs.keypoints, place.count)
    tests = math.log10(max(searched, 1)) + math.log10(max(pairs * (pairs - 1) / 2.0, 1.0))
    return tests + _log_tail(pairs - 2, place.count - 2, chance)


def _log_tail(trials: int, successes: int, chance: float) -> float:
    """Return log10 of the probability of at least so many successes."""
    if successes <= 0:
        return 0.0
    counts = np.arange(successes, trials + 1)
    logs = np.array([
        math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1)
        + k * math.log(chance) + (trials - k) * math.log1p(-chance)
        for k in counts
    ])  # fmt: skip
    if logs.size == 0:
        return 0.0
    top = float(logs.max())
    return min(0.0, (top + math.log(float(np.exp(logs - top).sum()))) / math.log(10.0))


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

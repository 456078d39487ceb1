"""A position from the flight: hypotheses, carried by motion, until fixes decide.

What a single frame cannot decide, the flight does: a look-alike does not move along with the
aircraft's own motion from field to field. Each source of information has one method:
:meth:`FlightFilter.move` for motion, :meth:`FlightFilter.update` for what a frame's search gave.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from gps_denied_inference.pipeline.localization.fix import Attempt, FrameFix
from gps_denied_inference.pipeline.localization.hypothesis import GATE, Hypothesis
from gps_denied_inference.pipeline.localization.motion import Motion
from gps_denied_inference.pipeline.localization.prior import Prior, rotation

SILENT = 10
"""Frames in a row that did not agree with the flight, after which others are searched further."""
ELSEWHERE = 4
"""Of so many such frames one is."""
FlightState = Literal["lost", "searching", "located"]


@dataclass(frozen=True)
class FlightRules:
    """When the flight is believed.

    Attributes:
        sure_inliers: agreeing keypoints, clear of the second place's, at which a believed fix says
            all that one frame can: enough to settle it, at three times what wrong places have.
        usual_inliers: agreeing keypoints that wrong places commonly have: they say nothing.
        most_gain: log odds that one frame can give.
        believed_gain: log odds that a fix gives at least which the frame alone is believed for.
        loss: log odds that a frame without an agreeing place takes.
        confirm: log odds at which a hypothesis is believed, and its lead over the next.
        drop: log odds below which a hypothesis is given up.
        new_ground: share of the frame's width after which a frame's evidence is new.
        most_hypotheses: kept at most.
        lost_sigma: share of the frame's width on the ground that the position's sigma may reach.
        slack: share of the frame's width on the ground by which fixes one after the other may
            disagree besides what their covariances say: relief and tilt in a turn.
        most_odds: log odds beyond which nothing is gained: doubt must be able to win again.
    """

    sure_inliers: int = 100
    usual_inliers: int = 10
    most_gain: float = 10.0
    believed_gain: float = 4.0
    loss: float = 0.3
    confirm: float = 8.0
    lead: float = 4.0
    drop: float = -1.0
    new_ground: float = 0.2
    most_hypotheses: int = 12
    lost_sigma: float = 0.3
    slack: float = 0.01
    most_odds: float = 14.0


@dataclass(frozen=True, eq=False)
class FlightEstimate:
    """Where the flight is.

    Attributes:
        state: "lost" (nothing to go by), "searching" (hypotheses that speak for themselves, none
            believed yet) or "located".
        east, north: m, map ENU, where the optical axis meets the ground; NaN unless located.
        covariance: (2, 2) m^2; NaN unless located.
        heading: rad clockwise from north; NaN unless located.
        reach: m on the ground per unit of the normalised image plane; NaN unless located.
        confidence: 0..1, that the best hypothesis is the right one.
        hypotheses: how many are carried.
        resets: times that the position jumped to another hypothesis.
        silent: frames since a fix agreed.
    """

    state: FlightState
    east: float
    north: float
    covariance: npt.NDArray[np.float64]
    heading: float
    reach: float
    confidence: float
    hypotheses: int
    resets: int
    silent: int

    @property
    def at(self) -> complex:
        """East and north as one complex number."""
        return complex(self.east, self.north)


class FlightFilter:
    """Carries hypotheses from frame to frame. Not thread-safe.

    Args:
        width: of the frame on the normalised image plane: px over focal length.
        rules: when the flight is believed.
    """

    def __init__(self, width: float, rules: FlightRules | None = None) -> None:
        self._width = width
        self._rules = rules or FlightRules()
        self._hypotheses: list[Hypothesis] = []
        self._located = False
        self._resets = 0
        self._origins = 0
        self._missed = 0

    def move(self, motion: Motion | None, seconds: float) -> None:
        """Go on to the next frame.

        Args:
            motion: from the new frame to the one before; None where it was not seen.
            seconds: between the two.
        """
        self._hypotheses = [
            h.carried(motion, self._width) if motion else h.drifted(seconds, self._width)
            for h in self._hypotheses
        ]
        self._settle()

    def restart(self) -> None:
        """Forget where the flight is: it may be anywhere. A place found anew is a reset."""
        self._resets += self._located
        self._hypotheses, self._located, self._missed = [], False, 0

    def update(self, attempt: Attempt) -> None:
        """Weigh what the search of the newest frame gave."""
        places = list(attempt.places)
        believed = attempt.fix
        kept: list[Hypothesis] = []
        claimed: set[int] = set()
        tells = [fix for fix in places if fix is believed or self._gain(fix, False) > 0.0]
        for hypothesis in self._hypotheses:
            index = self._agreeing(hypothesis, places, tells)
            if index is None:
                # A strange place that is believed speaks against this one; an empty frame hardly.
                loss = self._rules.loss if believed is None else self._rules.believed_gain
                kept.append(hypothesis.doubted(loss if tells else self._rules.loss / 3.0))
                continue
            claimed.add(index)
            fix = places[index]
            news = self._news(hypothesis, fix is believed)
            gain = self._gain(fix, fix is believed) * news
            gain = min(gain, self._rules.most_odds - hypothesis.log_odds)
            kept.append(hypothesis.corrected(fix, gain, self._widened(fix, believed, news)))
        for index, fix in enumerate(places):
            if index not in claimed:
                self._origins += 1
                gain = self._gain(fix, fix is believed)
                kept.append(Hypothesis.of(fix, self._origins, gain))
        before = self._best
        self._hypotheses = self._merged(kept)
        if self._located and before is not None and self._must_reset(before):
            self._resets += 1
        self._settle()
        best = self._best
        agreed = self._located and best is not None and best.silent == 0
        self._missed = 0 if agreed else self._missed + 1

    def search(self, base: Prior) -> Prior:
        """Return where to search the next frame.

        That is where the flight is expected, or what is known besides. Of many frames in a row that
        were not found there every fourth is searched further: one source of priors can be wrong.

        Args:
            base: what is known besides.
        """
        elsewhere = self._missed >= SILENT and self._missed % ELSEWHERE == 0
        if self._located:
            return base if elsewhere else self.prior(base) or base
        if elsewhere:
            return dataclasses.replace(base, position=None, position_sigma=None)
        return base

    def prior(self, base: Prior) -> Prior | None:
        """Return where the flight is expected; None unless located, by a camera that looks down.

        Args:
            base: what is known besides; its height gives way to the filter's scale, its position
                and heading to the filter's own.
        """
        best = self._best
        if not self._located or best is None or not base.looks_down:
            return None
        heading_sigma = math.sqrt(float(best.covariance[2, 2]))
        share = math.sqrt(float(best.covariance[3, 3]))
        gravity = base.gravity
        height = best.reach * max(float(gravity[2]), 1e-3) ** 1.5
        ahead = rotation(float(best.mean[2]), gravity)[:, 2]
        lean = height / max(-float(ahead[2]), 0.1) * complex(ahead[0], ahead[1])
        camera = best.at - lean
        return dataclasses.replace(
            base,
            position=(camera.real, camera.imag),
            position_sigma=best.sigma,
            height=height,
            height_sigma=max(share, 0.02) * height,
            heading=float(best.mean[2]),
            heading_sigma=max(heading_sigma, math.radians(1.0)),
        )

    @property
    def estimate(self) -> FlightEstimate:
        """Where the flight is now."""
        best, nothing = self._best, float("nan")
        if not self._located or best is None:
            hopeful = best is not None and best.log_odds >= self._rules.believed_gain
            state: FlightState = "searching" if hopeful else "lost"
            return FlightEstimate(
                state, nothing, nothing, np.full((2, 2), nothing), nothing, nothing,
                self._confidence() if best is not None else 0.0, len(self._hypotheses),
                self._resets, best.silent if best is not None else 0,
            )  # fmt: skip
        return FlightEstimate(
            "located", float(best.mean[0]), float(best.mean[1]), best.position_covariance,
            float(best.mean[2]), best.reach, self._confidence(), len(self._hypotheses),
            self._resets, best.silent,
        )  # fmt: skip

    @property
    def _best(self) -> Hypothesis | None:
        return max(self._hypotheses, key=lambda h: h.log_odds, default=None)

    def _agreeing(
        self, hypothesis: Hypothesis, places: list[FrameFix], tells: list[FrameFix]
    ) -> int | None:
        """Return the best supported place inside the hypothesis's gate.

        A place with no more inliers than wrong ones have says nothing, wherever it lies: the wider
        the gate, the more of them fall into it.
        """
        slack = self._rules.slack * self._width * hypothesis.reach
        inside = [
            index for index, fix in enumerate(places)
            if any(fix is other for other in tells) and hypothesis.distance(fix, slack) < GATE
        ]  # fmt: skip
        return max(inside, key=lambda index: places[index].inliers, default=None)

    def _gain(self, fix: FrameFix, believed: bool) -> float:
        """Return the log odds that a place's inliers give, its rivals' taken off."""
        rules = self._rules
        clear = fix.inliers - max(rules.usual_inliers, fix.runner_up)
        share = clear / (rules.sure_inliers - rules.usual_inliers)
        gain = rules.most_gain * min(max(share, 0.0), 1.0)
        return max(gain, rules.believed_gain) if believed else min(gain, rules.believed_gain)

    def _news(self, hypothesis: Hypothesis, believed: bool) -> float:
        """Return how much of a frame's evidence is new: the same ground errs the same way.

        What the frame alone is believed for is worth something in a hover as well: light, noise and
        height differ.
        """
        news = hypothesis.moved / self._rules.new_ground
        return min(1.0, news + (0.25 if believed else 0.0))

    def _widened(self, fix: FrameFix, believed: FrameFix | None, news: float) -> float:
        """Return how much wider than said a fix is taken.

        One that its frame alone is not believed for is doubted; one of ground that was seen before
        has the errors that it had before.
        """
        return (1.0 if fix is believed else 2.0) / math.sqrt(max(news, 0.1))

    def _merged(self, hypotheses: list[Hypothesis]) -> list[Hypothesis]:
        """Return the best hypotheses, one of those that have become one."""
        kept: list[Hypothesis] = []
        for hypothesis in sorted(hypotheses, key=lambda h: -h.log_odds):
            if hypothesis.log_odds < self._rules.drop:
                continue
            if not any(hypothesis.is_near(other) for other in kept):
                kept.append(hypothesis)
        return kept[: self._rules.most_hypotheses]

    def _settle(self) -> None:
        """Decide whether the flight is located, lost, or still being searched."""
        reach = self._rules.lost_sigma * self._width
        self._hypotheses = [h for h in self._hypotheses if h.sigma <= reach * h.reach]
        best = self._best
        if best is None:
            self._located = False
        elif self._located:
            self._located = self._may_stay(best)
        else:
            self._located = self._may_be_believed(best)

    def _lead(self, best: Hypothesis) -> float:
        rivals = [h.log_odds for h in self._hypotheses if h is not best]
        return best.log_odds - max(rivals, default=0.0)

    def _may_be_believed(self, best: Hypothesis) -> bool:
        return best.log_odds >= self._rules.confirm and self._lead(best) >= self._rules.lead

    def _may_stay(self, best: Hypothesis) -> bool:
        return best.log_odds > 0.0 and self._lead(best) >= 0.0

    def _must_reset(self, before: Hypothesis) -> bool:
        """Tell whether the best hypothesis is another one than before this frame, elsewhere."""
        best = self._best
        return best is not None and best.origin != before.origin and not best.is_near(before)

    def _confidence(self) -> float:
        """Return the share of the best hypothesis among all, and "none of them"."""
        odds = np.array([h.log_odds for h in self._hypotheses] + [self._rules.confirm / 2.0])
        weights = np.exp(odds - odds.max())
        return float(weights[:-1].max() / weights.sum())

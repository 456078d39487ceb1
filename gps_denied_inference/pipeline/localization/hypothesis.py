"""One place where the flight may be, carried by motion and drawn by fixes."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gps_denied_inference.pipeline.localization.fix import FrameFix
from gps_denied_inference.pipeline.localization.motion import Motion

Vector = npt.NDArray[np.float64]

GATE = 18.47
"""Chi-square of 4 degrees of freedom that one right fix in a thousand exceeds."""
HEADING_FLOOR = math.radians(1.5)
REACH_FLOOR = 0.03
"""Sigmas that a fix's heading and scale have at least: tilt bends both."""
DEFAULT_SPEED = 20.0
"""m/s, sigma of the speed of an aircraft whose motion is not seen."""
DEFAULT_TURN = math.radians(30.0)
"""rad/s, sigma of its rate of turn."""
DEFAULT_CLIMB = 0.03
"""1/s, sigma of its change of height as a share."""


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """A place with its uncertainty and what speaks for it.

    Attributes:
        mean: (4,) east and north of the axis's ground point, m; heading, rad clockwise from north;
            log of the reach (m on the ground per unit of the normalised image plane).
        covariance: (4, 4), without what all fixes on the map have in common.
        origin: number that it keeps from its first fix on.
        log_odds: what fixes have said for it, less what they have not.
        supports: fixes that agreed.
        silent: frames since the last of them.
        moved: way since then, in widths of the frame.
        map_sigma: m, along each axis: what all fixes on the map have in common.
    """

    mean: Vector
    covariance: Vector
    origin: int
    log_odds: float
    supports: int = 1
    silent: int = 0
    moved: float = 0.0
    map_sigma: float = 0.0

    @classmethod
    def of(cls, fix: FrameFix, origin: int, log_odds: float) -> Hypothesis:
        """Begin at a fix."""
        return cls(*_measured(fix, 1.0), origin, log_odds, map_sigma=fix.map_sigma)

    @property
    def at(self) -> complex:
        """Where the optical axis meets the ground, map ENU, m."""
        return complex(self.mean[0], self.mean[1])

    @property
    def reach(self) -> float:
        """M on the ground per unit of the normalised image plane."""
        return math.exp(float(self.mean[3]))

    @property
    def sigma(self) -> float:
        """M, of the position along its worse axis."""
        return math.sqrt(float(np.linalg.eigvalsh(self.covariance[:2, :2])[-1]))

    @property
    def position_covariance(self) -> Vector:
        """(2, 2) m^2 on the Earth: the map's own error does not average out."""
        return np.asarray(self.covariance[:2, :2] + np.eye(2) * self.map_sigma**2, np.float64)

    def carried(self, motion: Motion, width: float) -> Hypothesis:
        """Return the hypothesis one frame on.

        Args:
            motion: from this frame to the one before.
            width: of the frame on the normalised image plane.
        """
        east, north, heading, log_reach = self.mean
        step = complex(motion.similarity.b) * np.exp(log_reach - 1j * heading)
        mean = np.array([
            east + step.real, north + step.imag,
            math.remainder(heading - motion.similarity.angle, 2.0 * math.pi),
            log_reach + math.log(motion.similarity.scale),
        ])  # fmt: skip
        jacobian = np.eye(4)
        jacobian[0, 2], jacobian[1, 2] = step.imag, -step.real
        jacobian[0, 3], jacobian[1, 3] = step.real, step.imag
        noise = np.array([
            motion.shift_sigma * self.reach, motion.shift_sigma * self.reach,
            motion.turn_sigma, motion.scale_sigma,
        ])  # fmt: skip
        covariance = jacobian @ self.covariance @ jacobian.T + np.diag(noise**2)
        return dataclasses.replace(
            self, mean=mean, covariance=covariance, silent=self.silent + 1,
            moved=self.moved + abs(motion.similarity.b) / width,
        )  # fmt: skip

    def drifted(self, seconds: float, width: float) -> Hypothesis:
        """Return the hypothesis some time on, with no motion seen."""
        way = DEFAULT_SPEED * seconds
        noise = np.array([way, way, DEFAULT_TURN * seconds, DEFAULT_CLIMB * seconds])
        return dataclasses.replace(
            self, covariance=self.covariance + np.diag(noise**2), silent=self.silent + 1,
            moved=self.moved + way / (width * self.reach),
        )  # fmt: skip

    def distance(self, fix: FrameFix, slack: float) -> float:
        """Return the squared Mahalanobis distance of a fix, chi-square of 4 degrees of freedom.

        Args:
            fix: of the same frame.
            slack: m, sigma by which successive fixes may disagree besides.
        """
        mean, covariance = _measured(fix, 1.0)
        covariance[[0, 1], [0, 1]] += slack**2 + fix.map_sigma**2
        off = self._off(mean)
        return float(off @ np.linalg.solve(self.covariance + covariance, off))

    def corrected(self, fix: FrameFix, gain: float, widened: float = 1.0) -> Hypothesis:
        """Return the hypothesis drawn by a fix (Kalman), its odds raised by ``gain``."""
        mean, noise = _measured(fix, widened)
        weight = self.covariance @ np.linalg.inv(self.covariance + noise)
        moved = self.mean + weight @ self._off(mean)
        moved[2] = math.remainder(moved[2], 2.0 * math.pi)
        rest = np.eye(4) - weight
        covariance = rest @ self.covariance @ rest.T + weight @ noise @ weight.T
        return Hypothesis(
            moved, covariance, self.origin, self.log_odds + gain, self.supports + 1,
            map_sigma=fix.map_sigma,
        )  # fmt: skip

    def doubted(self, loss: float) -> Hypothesis:
        """Return the hypothesis with its odds lowered."""
        return dataclasses.replace(self, log_odds=self.log_odds - loss)

    def is_near(self, other: Hypothesis) -> bool:
        """Tell whether two hypotheses have become one."""
        off = self._off(other.mean)
        joint = self.covariance + other.covariance
        return float(off @ np.linalg.solve(joint, off)) < GATE

    def _off(self, mean: Vector) -> Vector:
        off = mean - self.mean
        off[2] = math.remainder(float(off[2]), 2.0 * math.pi)
        return np.asarray(off, np.float64)


def _measured(fix: FrameFix, widened: float) -> tuple[Vector, Vector]:
    """Return a fix as a measurement (4,) of a hypothesis's mean, and its covariance.

    Without what all fixes on the map have in common.
    """
    covariance = np.zeros((4, 4))
    covariance[:2, :2] = fix.covariance - np.eye(2) * fix.map_sigma**2
    covariance[2, 2] = max(fix.heading_sigma, HEADING_FLOOR) ** 2
    covariance[3, 3] = max(fix.reach_sigma, REACH_FLOOR) ** 2
    mean = np.array([fix.east, fix.north, fix.heading, math.log(fix.reach)])
    return mean, widened**2 * covariance

"""Figures of an evaluation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from gps_denied_inference.evaluation.running import Outcome

SIGMAS = (1, 2, 3)
NAN = float("nan")


def inside(nees: Sequence[float], sigmas: float) -> float:
    """Return the share whose error lies inside so many sigmas, as one dimension has it.

    The ellipse holds what the interval would: 68.3, 95.4 and 99.7 % for 1, 2 and 3 sigmas.
    """
    if not nees:
        return NAN
    bound = -2.0 * math.log(math.erfc(sigmas / math.sqrt(2.0)))
    return float(np.mean(np.asarray(nees) < bound))


def summarise(outcomes: Sequence[Outcome], wrong_beyond: float) -> dict[str, Any]:
    """Return the figures; NaN where there is nothing to tell.

    Args:
        outcomes: in the order of the frames.
        wrong_beyond: m: a fix further off is wrong. So is one of a frame without a place.
    """
    fixed = [o for o in outcomes if o.at is not None]
    errors = np.array([o.error for o in fixed if o.error is not None])
    nees = [o.nees for o in fixed if o.nees is not None]
    right = [o.error is not None and o.error <= wrong_beyond for o in outcomes]
    first = next((index for index, value in enumerate(right) if value), None)
    after = right[first:] if first is not None else []
    cameras = [
        (o.camera_error, o.camera_error / o.record.height)
        for o in fixed if o.camera_error is not None and o.record.height
    ]  # fmt: skip
    states = Counter(o.estimate.state for o in outcomes if o.estimate is not None)
    stages = {name for o in outcomes for name in o.attempt.timings}
    last = outcomes[-1].estimate if outcomes else None
    return {
        "frames": len(outcomes),
        "fixes": len(fixed),
        "right": sum(right),
        "wrong": len(fixed) - sum(right),
        "wrong_beyond_m": wrong_beyond,
        "right_share": sum(right) / len(outcomes) if outcomes else NAN,
        "median_error_m": float(np.median(errors)) if len(errors) else NAN,
        "p95_error_m": float(np.percentile(errors, 95)) if len(errors) else NAN,
        "max_error_m": float(errors.max()) if len(errors) else NAN,
        **{f"inside_{n}_sigma_share": inside(nees, n) for n in SIGMAS},
        "nees_mean": float(np.mean(nees)) if nees else NAN,
        "median_camera_error_m": float(np.median([c[0] for c in cameras])) if cameras else NAN,
        "median_camera_error_of_height":
            float(np.median([c[1] for c in cameras])) if cameras else NAN,
        "time_per_fix_ms": 1e3 * float(np.mean([o.seconds for o in fixed])) if fixed else NAN,
        "time_per_frame_ms":
            1e3 * float(np.mean([o.seconds for o in outcomes])) if outcomes else NAN,
        "first_fix_after_frames": None if first is None else first + 1,
        "right_share_after_first": sum(after) / len(after) if after else NAN,
        "states": dict(states),
        "resets": last.resets if last is not None else 0,
        "reasons": dict(Counter(o.attempt.reason for o in outcomes if o.attempt.fix is None)),
        "candidates_mean":
            float(np.mean([o.attempt.candidates for o in outcomes])) if outcomes else NAN,
        "stages_ms": {
            name: 1e3 * float(np.mean([o.attempt.timings.get(name, 0.0) for o in outcomes]))
            for name in sorted(stages)
        },
    }  # fmt: skip


def row_of(outcome: Outcome) -> dict[str, Any]:
    """Return one frame's line of the report."""
    attempt, estimate, at = outcome.attempt, outcome.estimate, outcome.at
    best = attempt.places[0] if attempt.places else None
    covariance, truth = outcome.covariance, outcome.record.axis
    off = None if at is None or truth is None else at - truth
    return {
        "frame": outcome.record.path.name,
        "state": estimate.state if estimate is not None else "",
        "resets": estimate.resets if estimate is not None else 0,
        "silent": estimate.silent if estimate is not None else 0,
        "reason": attempt.reason,
        "east_m": at.real if at is not None else NAN,
        "north_m": at.imag if at is not None else NAN,
        "error_east_m": NAN if off is None else off.real,
        "error_north_m": NAN if off is None else off.imag,
        "error_m": NAN if outcome.error is None else outcome.error,
        "sigma_m": NAN if covariance is None else math.sqrt(float(np.trace(covariance)) / 2.0),
        "nees": NAN if outcome.nees is None else outcome.nees,
        "camera_error_m": NAN if outcome.camera_error is None else outcome.camera_error,
        "inliers": best.inliers if best is not None else 0,
        "runner_up": best.runner_up if best is not None else 0,
        "confidence": best.confidence if best is not None else NAN,
        "candidates": attempt.candidates,
        "time_ms": 1e3 * outcome.seconds,
    }

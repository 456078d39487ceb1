"""What came out of a flight over the map: positions held against where the camera truly was."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gps_denied_inference.demo.scene import GROUND_SAMPLE
from gps_denied_inference.demo.scene_map import truth
from gps_denied_inference.demo.simulation import SimulatedFlight

TWO_SIGMA = -2.0 * math.log(math.erfc(2.0 / math.sqrt(2.0)))
"""Squared Mahalanobis distance in the plane that 95.4 % stay below, as two sigmas on a line."""

MOST_ERROR_PX = 8.0
"""px of the map that no fix may be off by: an attitude that is 2 degrees off makes six of them."""
MOST_MEDIAN_PX = 3.0
MOST_FLIGHT_ERROR_PX = 10.0
"""px of the map that 95 % of the positions between fixes stay below."""
LATEST_FIX = 10
"""Frames searched before the first fix at most."""
LEAST_FOLLOWED = 0.9
"""Share of the frames after the first fix that have a position."""
LEAST_INSIDE = 0.6
"""Share of fixes within their own two sigmas; below it the covariance is a lie."""


@dataclass(frozen=True, eq=False)
class Position:
    """Where the node says that the camera was.

    Attributes:
        index: of the frame.
        at: m east and north of the map's middle.
        covariance: (2, 2) m^2.
    """

    index: int
    at: complex
    covariance: npt.NDArray[np.float64]

    def error(self, flight: SimulatedFlight) -> float:
        """Return the distance to the truth, m."""
        return abs(self.at - truth(flight, self.index))

    def is_inside(self, flight: SimulatedFlight) -> bool:
        """Tell whether the truth lies within two sigmas."""
        off = self.at - truth(flight, self.index)
        vector = np.array([off.real, off.imag])
        return float(vector @ np.linalg.solve(self.covariance, vector)) < TWO_SIGMA


@dataclass(frozen=True, eq=False)
class MapFlight:
    """One flight over the map.

    Attributes:
        published: frames given to the node.
        answered: frames whose features came back.
        searched: frames that were looked for on the map.
        first_fix: searched frames up to the first fix; None without one.
        fixes: positions found on the map.
        followed: positions of frames, carried by the tracks between fixes.
        exit_code: of the node's process.
        duration: s, first to last frame.
    """

    published: int
    answered: int
    searched: int
    first_fix: int | None
    fixes: Sequence[Position]
    followed: Sequence[Position]
    exit_code: int
    duration: float


def summarise(flight: SimulatedFlight, flown: MapFlight) -> dict[str, Any]:
    """Return the report's ``localization``; not measured = NaN."""
    errors = [position.error(flight) for position in flown.fixes]
    between = [position.error(flight) for position in flown.followed]
    first = min((position.index for position in flown.fixes), default=flown.published)
    after = flown.published - first - 1
    inside = [position.is_inside(flight) for position in flown.fixes]
    return {
        "published": flown.published,
        "answered": flown.answered,
        "searched": flown.searched,
        "fixes": len(flown.fixes),
        "first_fix_after_frames": flown.first_fix,
        **_errors("error", errors),
        "inside_2_sigma_share": float(np.mean(inside)) if inside else math.nan,
        "followed_share": len(flown.followed) / after if after > 0 else math.nan,
        **_errors("followed_error", between),
        "m_per_map_px": GROUND_SAMPLE,
        "height_m_mean": float(np.mean([flight.pose(k).height for k in range(len(flight))])),
        "exit_code": flown.exit_code,
        "duration_s": flown.duration,
    }


def _errors(name: str, errors: Sequence[float]) -> dict[str, float]:
    p50, p95, most = np.percentile(errors, (50, 95, 100)) if errors else (math.nan,) * 3
    return {f"{name}_m_p50": float(p50), f"{name}_m_p95": float(p95), f"{name}_m_max": float(most)}


def failures(summary: Mapping[str, Any]) -> list[str]:
    """Return one line for everything that is not as it should be."""
    found = []
    pixel, first = summary["m_per_map_px"], summary["first_fix_after_frames"]
    if first is None:
        found.append(f"none of {summary['searched']} frames was found on the map")
    elif first > LATEST_FIX:
        found.append(f"the first fix came after {first} searched frames, not {LATEST_FIX}")
    for name, most, what in (
        ("error_m_max", MOST_ERROR_PX, "a fix is"),
        ("error_m_p50", MOST_MEDIAN_PX, "half of the fixes are more than"),
        ("followed_error_m_p95", MOST_FLIGHT_ERROR_PX, "5 % of the positions are more than"),
    ):
        if summary[name] > most * pixel:
            found.append(f"{what} {summary[name]:.0f} m off, not {most * pixel:.0f} m")
    for name, least, what in (
        ("inside_2_sigma_share", LEAST_INSIDE, "of the fixes are within their own two sigmas"),
        ("followed_share", LEAST_FOLLOWED, "of the frames after the first fix have a position"),
    ):
        if summary[name] < least:
            found.append(f"{summary[name]:.0%} {what}, not {least:.0%}")
    if summary["exit_code"] != 0:
        found.append(f"localization: the node's process ended with {summary['exit_code']}")
    return found


def in_words(summary: Mapping[str, Any]) -> str:
    """Return the figures for a terminal."""
    lines = [
        f"on the map: {summary['fixes']} of {summary['searched']} searched frames found, the first "
        f"after {summary['first_fix_after_frames']}",
    ]
    if summary["fixes"]:
        lines += [
            f"fixes:      {_off(summary, 'error_m')}; {summary['inside_2_sigma_share']:.0%} lie "
            "within their own two sigmas",
            f"in between: {_off(summary, 'followed_error_m')}; "
            f"{min(summary['followed_share'], 1.0):.0%} of the frames after the first fix",
        ]
    return "\n".join(lines)


def _off(summary: Mapping[str, Any], name: str) -> str:
    median, p95 = summary[f"{name}_p50"], summary[f"{name}_p95"]
    pixels, share = median / summary["m_per_map_px"], median / summary["height_m_mean"]
    return (
        f"{median:.0f} m off (median: {pixels:.1f} px of the map, {share:.1%} of the height), "
        f"{p95:.0f} m (p95)"
    )

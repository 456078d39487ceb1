"""Whether frames that are answered give what the task is for, and if not, why.

A frame is answered whatever it shows: a black one with no features, one without a reference with no
matches. Here is judged what has come of the newest frames.
"""

from __future__ import annotations

import statistics
import threading
from collections import deque
from dataclasses import dataclass

from gps_denied_inference.pipeline.features import Features
from gps_denied_inference.pipeline.frame_quality import FrameQuality
from gps_denied_inference.pipeline.reference import Reference
from gps_denied_inference.settings import Task

IN_A_ROW = 20
"""Frames without result until that is no passing thing."""
STAMPS_IN_A_ROW = 5
"""Frames with bad stamps until they are the camera's; a bag that starts again has one."""
FEWEST_FEATURES = 20
"""Features with contrast beyond the noise below which nothing can be matched or verified."""
WAIT_FOR_REFERENCE = 2.0
"""s after activate in which a reference may still come."""
FAR_SCALE = 1.5
"""Ratio of scales from which networks no longer tell a corner reliably."""

FEWEST_GO_ON = 0.2
"""Share of a frame's points that are on a track begun before, below which tracks die."""

_CAUSES = ("zero", "not_rising", "blank", "lost", "unmatched", "repeated")


@dataclass(frozen=True)
class Finding:
    """Why the task does not give its result.

    Attributes:
        cause: one word or two, the same as long as the cause is.
        line: what is wrong and what to do, in one line.
    """

    cause: str
    line: str


class TaskHealth:
    """Follows the answers to one task's frames. Thread-safe.

    Args:
        task: the node's.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Begin anew: what was before a pause says nothing of what comes after it."""
        with self._lock:
            self._stamp: int | None = None
            self._row = dict.fromkeys(_CAUSES, 0)
            self._qualities: deque[FrameQuality] = deque(maxlen=IN_A_ROW)
            self._going_on: deque[float] = deque(maxlen=IN_A_ROW)

    def answered(
        self,
        stamp_ns: int,
        features: Features,
        matched: bool | None = None,
        repeated: bool = False,
        quality: FrameQuality | None = None,
    ) -> None:
        """Note one answered frame.

        Args:
            stamp_ns: the frame's.
            features: the frame's.
            matched: whether the frame was matched with the reference; None = it was not tried.
            repeated: whether it is the frame before once more.
            quality: the frame's; None = nobody measured.
        """
        ages = features.track_ages
        going_on = 0 if ages is None else int((ages > 0).sum())
        found = {
            "zero": stamp_ns == 0,
            "not_rising": self._stamp is not None and stamp_ns <= self._stamp,
            "blank": _shown(features) < FEWEST_FEATURES,
            "lost": ages is not None and going_on == 0,
            "unmatched": matched is False,
            "repeated": repeated,
        }
        with self._lock:
            self._stamp = stamp_ns
            if ages is not None:
                self._going_on.append(going_on / max(len(ages), 1))
            if quality is not None:
                self._qualities.append(quality)
            for name, holds in found.items():
                self._row[name] = self._row[name] + 1 if holds else 0

    def finding(
        self,
        reference: Reference | None,
        active_for: float,
        reference_topic: str = "reference/image",
        reference_waits: bool = False,
    ) -> Finding | None:
        """Return why the task does not give its result; None where it does, as far as is known.

        Args:
            reference: what task ``match`` matches with; None = there is none.
            active_for: s since activate.
            reference_topic: where a reference would come from.
            reference_waits: True where one came and is used with the next frame.
        """
        with self._lock:
            row = dict(self._row)
            quality = FrameQuality.median(self._qualities)
            going_on = tuple(self._going_on)
        seen = _seen(quality)
        stamps = self._stamps(row)
        if stamps is not None:
            return stamps
        if self._task == "match" and not reference_waits:
            missing = self._reference(reference, active_for, reference_topic)
            if missing is not None:
                return missing
        blank, lost, unmatched = row["blank"], row["lost"], row["unmatched"]
        repeated = row["repeated"]
        if blank >= IN_A_ROW:
            return Finding(
                "featureless frames",
                f"the last {blank} frames show fewer than {FEWEST_FEATURES} features: "
                + (
                    seen
                    or "is the lens covered, the exposure wrong, or detection_threshold too high?"
                ),
            )
        if repeated >= IN_A_ROW:
            return Finding(
                "frozen image",
                f"the last {repeated} frames are one and the same image: has the camera frozen?",
            )
        if lost >= IN_A_ROW:
            return Finding(
                "no tracks",
                f"no track went on in the last {lost} frames: "
                + (
                    seen
                    or "successive frames have too little in common (a higher frame rate, or a "
                    "higher frame_rate_limit, lets more of each be seen again)"
                ),
            )
        if len(going_on) == IN_A_ROW and statistics.median(going_on) < FEWEST_GO_ON and seen:
            return Finding(
                f"tracks die: {quality.fault}",
                f"most tracks end at once in the last {IN_A_ROW} frames: {seen}",
            )
        if unmatched >= IN_A_ROW and self._task == "match":
            described = "" if reference is None else f"; {reference.described}"
            return Finding(
                "no match",
                f"none of the last {unmatched} frames matched the reference: another "
                "place, another heading (reference_angles: 8 covers any) or another scale "
                f"(reference_scale)?{described}{f'; {seen}' if seen else ''}",
            )
        return None

    def _stamps(self, row: dict[str, int]) -> Finding | None:
        zero, late = row["zero"], row["not_rising"]
        if zero >= STAMPS_IN_A_ROW:
            effect = "no track can go on" if self._task == "track" else "no result has a time"
            return Finding(
                "zero stamps",
                f"the stamps of the last {zero} frames are zero, so {effect}: the camera "
                "driver is to fill header.stamp",
            )
        if late >= STAMPS_IN_A_ROW and self._task == "track":
            return Finding(
                "stamps do not rise",
                f"the stamps of the last {late} frames do not rise, so no track can "
                "go on: the camera driver is to stamp each frame with its own time; do two "
                "cameras publish on one topic?",
            )
        return None

    @staticmethod
    def _reference(reference: Reference | None, active_for: float, topic: str) -> Finding | None:
        if reference is None:
            if active_for < WAIT_FOR_REFERENCE:
                return None
            return Finding(
                "no reference",
                f"no reference: publish one on {topic}, or set reference_file",
            )
        if (shown := _shown(reference.views.views[0])) < FEWEST_FEATURES:
            return Finding(
                "featureless reference",
                f"the reference shows {shown} features, too few to match: is it black, blurred "
                "or blank?",
            )
        if reference.short_by > FAR_SCALE:
            return Finding(
                "reference's scale",
                f"the reference is {reference.short_by:.1f} times too large to be seen at the "
                f"frames' scale: {reference.described}",
            )
        return None


def _seen(quality: FrameQuality) -> str:
    """Return what is wrong with frames of this quality and what to do; empty = nothing."""
    if quality.fault == "dark":
        return (
            f"they are dark (mean {quality.brightness:.0%} of white, {quality.dark_share:.0%} of "
            "the pixels black): uncover the lens, lengthen the exposure, raise the gain"
        )
    if quality.fault == "overexposed":
        return (
            f"they are overexposed ({quality.bright_share:.0%} of the pixels white): shorten the "
            "exposure, lower the gain"
        )
    if quality.fault == "blurred":
        return (
            f"they are blurred (blur {quality.blur:.2f}): shorten the exposure, focus the lens, "
            "damp vibration"
        )
    return ""


def _shown(features: Features) -> int:
    """Return how many features are more than noise."""
    evident = features.evident(features.keypoints)
    return features.count if evident is None else int(evident.sum())

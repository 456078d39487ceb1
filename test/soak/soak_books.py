"""The soak's books: whether ``~/status`` counted every frame that the camera sent, no other.

Pure: made of what the camera wrote down, what was heard of the answers, and what was heard of
``~/status``, each with the monotonic time of it.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

SETTLING = 2.0
"""s after which a frame has to be counted: the node itself waits half a second for late news."""
EDGE = 1.0
"""s before the first status that says active, in which its frames may have been sent."""


@dataclass(frozen=True)
class Sent:
    """A frame as the camera wrote it down: when (s), by which life of the camera, its number."""

    time: float
    life: int
    number: int


@dataclass(frozen=True)
class Answer:
    """An answer as it was heard: when (s), and to which frame."""

    time: float
    life: int
    number: int


@dataclass(frozen=True)
class Count:
    """What one status said: when (s), whether active, and the counters since configure."""

    time: float
    active: bool
    frames_in: int
    frames_out: int
    dropped: int
    reasons: dict[str, int] = field(default_factory=dict)


@dataclass
class Period:
    """What came of one period of activity.

    Attributes:
        begin, end: s, of the first and the last status that says active.
        answered, dropped: frames, by the last status.
        gaps: frames between the first and the last answer that got none.
        unexplained: frames of the gaps that no status counted in time, at worst.
        overcounted: frames that a status counted and that were never sent, at worst.
        unheard: answers that a status counted and that were not heard.
        reasons: why frames were dropped.
        unexplained_at, overcounted_at: s, of the status at which each was at its worst.
        overcounted_reasons: why frames were dropped, until ``overcounted_at``.
    """

    begin: float
    end: float
    answered: int = 0
    dropped: int = 0
    gaps: int = 0
    unexplained: int = 0
    overcounted: int = 0
    unheard: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    unexplained_at: float = math.nan
    overcounted_at: float = math.nan
    overcounted_reasons: Counter[str] = field(default_factory=Counter)


def periods(counts: Sequence[Count]) -> list[tuple[Count, list[Count]]]:
    """Split statuses into periods of activity: what was counted before, and the active statuses."""
    found: list[tuple[Count, list[Count]]] = []
    zero = Count(0.0, False, 0, 0, 0)
    before, current = zero, None
    for count in counts:
        anew = count.frames_in < before.frames_in or count.frames_out < before.frames_out
        if anew:
            before, current = zero, None
        if count.active:
            if current is None:
                current = []
                found.append((before, current))
            current.append(count)
        else:
            current = None
        before = count
    return found


def gaps(answers: Sequence[Answer]) -> list[int]:
    """Return for each answer the frames before it, since the first one, that got none."""
    total, found = 0, []
    for index, answer in enumerate(answers):
        last = answers[index - 1] if index else None
        if last is not None and last.life == answer.life:
            total += answer.number - last.number - 1
        found.append(total)
    return found


def judge(
    before: Count, active: Sequence[Count], answers: Sequence[Answer], sent: Sequence[float]
) -> Period:
    """Hold one period's statuses against what was sent and answered.

    Args:
        before: the status before it.
        active: its statuses.
        answers: heard from a moment before it until the next period, in their order.
        sent: times (s) of all frames, rising.
    """
    last = active[-1]
    period = Period(active[0].time, last.time)
    period.answered = last.frames_out - before.frames_out
    period.dropped = last.dropped - before.dropped
    period.reasons = _since(before, last)
    times = [answer.time for answer in answers]
    for count in active:
        said = count.frames_out - before.frames_out
        period.unheard = max(period.unheard, said - bisect.bisect(times, count.time + SETTLING))
    missing = gaps(answers)
    first = bisect.bisect(sent, period.begin - EDGE)
    for count in active:
        said = count.frames_out - before.frames_out
        dropped = count.dropped - before.dropped
        known = said - period.unheard  # answers are missed while the topic is still being found
        old = min(known, bisect.bisect(times, count.time - SETTLING))
        if old > 0 and missing[old - 1] - dropped > period.unexplained:
            period.unexplained, period.unexplained_at = missing[old - 1] - dropped, count.time
        if known > 0:
            period.gaps = max(period.gaps, missing[min(known, len(missing)) - 1])
        until = bisect.bisect(sent, count.time)
        more = said + dropped - (until - first)
        if more > period.overcounted:
            period.overcounted, period.overcounted_at = more, count.time
            period.overcounted_reasons = _since(before, count)
    return period


def _since(before: Count, count: Count) -> Counter[str]:
    """Return the frames dropped between two statuses, by reason."""
    reasons = Counter(count.reasons)
    reasons.subtract(before.reasons)
    return reasons


def judge_all(
    counts: Sequence[Count], answers: Sequence[Answer], sent: Sequence[Sent]
) -> list[Period]:
    """Judge every period of activity."""
    times = sorted(frame.time for frame in sent)
    heard = [answer.time for answer in answers]
    found = periods(counts)
    judged = []
    for index, (before, active) in enumerate(found):
        begin = bisect.bisect(heard, max(active[0].time - EDGE, before.time))
        following = found[index + 1][1][0].time if index + 1 < len(found) else float("inf")
        end = bisect.bisect(heard, following)
        judged.append(judge(before, active, answers[begin:end], times))
    return judged

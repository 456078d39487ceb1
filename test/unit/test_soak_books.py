"""The soak's books find what was not counted and what was counted twice; its figures find leaks."""

from __future__ import annotations

import bisect
import math
from collections import Counter

import pytest
from soak_books import Answer, Count, Sent, judge_all
from soak_report import SLOPE_LIMIT, Report, Struck, growth, recovered_after, slope

RATE = 30.0


def flight(
    seconds: float = 20.0, dropped: tuple[int, ...] = (), counted: int | None = None
) -> tuple[list[Count], list[Answer], list[Sent]]:
    """Frames at 30 Hz, of which some get no answer and ``counted`` are counted as dropped."""
    sent = [Sent(i / RATE, 1, i) for i in range(round(seconds * RATE))]
    answers = [Answer(s.time + 0.01, 1, s.number) for s in sent if s.number not in dropped]
    said = len(dropped) if counted is None else counted
    counts = [Count(-0.5, False, 0, 0, 0)]
    times = [a.time for a in answers]
    for step in range(round(seconds * 10) + 30):
        time = step / 10.0
        out = bisect.bisect(times, time)
        gone = min(said, sum(d / RATE <= time for d in dropped) if counted is None else said)
        if counted is not None and not any(d / RATE <= time for d in dropped):
            gone = 0
        counts.append(Count(time, True, out + gone, out, gone, {"superseded": gone}))
    return counts, answers, sent


def test_every_gap_that_is_counted_is_explained() -> None:
    (period,) = judge_all(*flight(dropped=(50, 51, 52, 300)))
    assert (period.gaps, period.unexplained, period.overcounted) == (4, 0, 0)
    assert period.dropped == 4
    assert period.answered == 596
    assert period.reasons == Counter(superseded=4)


def test_a_frame_that_nobody_counted_is_found() -> None:
    (period,) = judge_all(*flight(dropped=(50, 51, 52), counted=2))
    assert period.unexplained == 1


def test_a_frame_that_was_never_sent_is_found() -> None:
    (period,) = judge_all(*flight(dropped=(50, 51, 52), counted=9))
    assert period.overcounted > 0


def test_each_activation_and_each_camera_is_judged_by_itself() -> None:
    counts, answers, sent = flight(5.0)
    later = [Count(20.0, False, 0, 0, 0)]
    later += [
        Count(20.0 + c.time, c.active, c.frames_in, c.frames_out, c.dropped)
        for c in counts if c.active
    ]  # fmt: skip
    answers += [Answer(20.0 + a.time, 2, a.number) for a in answers]
    sent += [Sent(20.0 + s.time, 2, s.number) for s in sent]
    judged = judge_all([*counts, *later], answers, sent)
    assert [p.answered for p in judged] == [150, 150]
    assert [p.gaps for p in judged] == [0, 0]


@pytest.mark.parametrize(
    ("answers", "due", "expected"),
    [
        ([0.1 * i for i in range(200)], 1.0, 0.1),
        ([0.1 * i for i in range(10)] + [3.0 + 0.1 * i for i in range(120)], 0.95, 2.05),
        ([0.1 * i for i in range(30)] + [6.0 + 0.1 * i for i in range(120)], 1.0, 5.0),
        ([0.1 * i for i in range(30)], 1.0, math.inf),
        ([], 1.0, math.inf),
    ],
)
def test_active_again_is_when_answers_flow_without_a_pause(
    answers: list[float], due: float, expected: float
) -> None:
    assert recovered_after(due, answers) == pytest.approx(expected, abs=0.11)


def rows(gain: float, pid: int = 7, minutes: int = 30, level: float = 300.0) -> list[tuple]:
    return [(float(s), "node", pid, level + gain * s / 60.0, 20 + round(gain * s / 600.0), 30, None)
            for s in range(60 * minutes)]  # fmt: skip


def test_a_slope_is_one_over_all_lives() -> None:
    both = rows(0.5) + [(t + 9000.0, *rest) for t, *rest in rows(0.5, 8, level=100.0)]
    gain, error, seconds = slope(both, 3)
    assert gain == pytest.approx(0.5)
    assert error == pytest.approx(0.0, abs=1e-6)
    assert seconds == pytest.approx(2 * 28 * 60, abs=5)
    assert growth(both, 4) >= 1.0


@pytest.mark.parametrize(("gain", "late", "holds"), [(0.01, 1.0, True), (2.0, 1.0, False),
                                                      (0.01, 6.0, False)])  # fmt: skip
def test_a_bound_that_is_broken_is_said(gain: float, late: float, holds: bool) -> None:
    counts, answers, sent = flight(1800.0)
    report = Report(
        0.0, 1800.0, [Struck("camera_silent", 10.0, 12.0, late)], sent, answers,
        judge_all(counts, answers, sent), rows(gain), [], [], [], [],
    )  # fmt: skip
    figures = report.figures()
    assert figures["processes"]["node"]["rss_mib_per_min"] == pytest.approx(gain)
    assert (figures["processes"]["node"]["rss_mib_per_min"] < SLOPE_LIMIT) == (gain < 0.2)
    assert (report.broken(figures) == []) == holds
    assert "camera_silent" in report.text(figures)

"""Gaps in the sender's numbers, and what the books make of them."""

from __future__ import annotations

import pytest

from gps_denied_inference.pipeline.accounting import LOST, SETTLING, SUPERSEDED, FrameAccounting
from gps_denied_inference.pipeline.sequence import QUIET, UNSUPPORTED, SequenceWatch

PERIOD = 1 / 30


def watch_all(numbers, period=PERIOD):
    watch = SequenceWatch()
    return [watch.missing(number, index * period) for index, number in enumerate(numbers)]


def test_an_unbroken_row_misses_nothing_wherever_it_begins():
    assert watch_all(range(1000, 1100)) == [0] * 100


def test_gaps_are_counted():
    assert watch_all([1, 2, 5, 6, 16]) == [0, 0, 2, 0, 9]


def test_a_sender_that_starts_again_lost_nothing():
    assert watch_all([500, 501, 1, 2, 3]) == [0] * 5


def test_gaps_count_again_some_time_after_a_new_start():
    watch = SequenceWatch()
    watch.missing(500, 0.0)
    assert watch.missing(1, 0.1) == 0
    assert watch.missing(4, 0.2) == 0
    assert watch.missing(5, 0.1 + QUIET) == 0
    assert watch.missing(8, 0.2 + QUIET) == 2


def test_two_senders_on_one_topic_are_no_loss():
    interleaved = [number for step in range(50) for number in (1_000_000 + step, 5 + step)]
    assert sum(watch_all(interleaved)) == 0
    assert sum(watch_all(interleaved[1:])) == 0, "the step up is faster than any camera"


def test_a_middleware_without_numbers_tells_nothing():
    assert watch_all([UNSUPPORTED] * 10) == [0] * 10


def books():
    now = [0.0]
    return FrameAccounting(lambda: now[0]), now


def test_lost_frames_are_in_and_dropped_but_no_sign_of_life():
    accounting, now = books()
    accounting.received()
    accounting.answered({})
    now[0] = 2.0
    accounting.lost(4)
    assert accounting.snapshot().frames_in == 1, "not settled yet"
    accounting.skipped(4)
    now[0] = 3.0
    snapshot = accounting.snapshot()
    assert (snapshot.frames_in, snapshot.frames_out, snapshot.drops) == (5, 1, {LOST: 4})
    assert snapshot.time_since_frame == 3.0


def test_a_gap_is_what_was_lost_and_the_rest_was_superseded():
    for told_before in (True, False):
        accounting, now = books()
        if told_before:
            accounting.lost(3)
        accounting.skipped(5)
        if not told_before:
            now[0] = SETTLING / 2
            assert accounting.snapshot().frames_in == 0, "not settled yet"
            accounting.lost(3)
        now[0] = SETTLING
        snapshot = accounting.snapshot()
        assert snapshot.drops == {LOST: 3, SUPERSEDED: 2}
        assert snapshot.frames_in == snapshot.frames_dropped == 5


@pytest.mark.parametrize("count", [2**31 - 1, 2**31, 2**63, -1, 0])
def test_a_wrong_count_of_the_middleware_is_worth_the_gap(count):
    """Fast DDS adds 2**31 - 1 for one fragmented frame, and again when the camera leaves."""
    accounting, now = books()
    for _ in range(9):
        accounting.received()
        accounting.answered({})
    accounting.lost(count)
    accounting.skipped(1)
    accounting.received()
    accounting.answered({})
    now[0] = 2 * SETTLING
    accounting.lost(count)
    snapshot = accounting.snapshot()
    assert (snapshot.frames_in, snapshot.frames_out, snapshot.drops) == (11, 10, {LOST: 1})
    now[0] = 10.0
    accounting.skipped(3)  # nothing of it was said to be lost: the old claim is spent
    now[0] = 11.0
    assert accounting.snapshot().drops == {LOST: 1, SUPERSEDED: 3}
    assert accounting.snapshot().frames_in == 14


def test_one_claim_may_speak_of_two_gaps():
    accounting, now = books()
    accounting.skipped(2)
    now[0] = 0.1
    accounting.skipped(2)
    accounting.lost(3)
    now[0] = 0.1 + SETTLING
    assert accounting.snapshot().drops == {LOST: 3, SUPERSEDED: 1}


def test_a_claim_without_a_gap_adds_nothing():
    accounting, now = books()
    accounting.lost(5)
    for now[0] in (0.1, SETTLING, 3.0):
        assert accounting.snapshot().frames_in == 0


def test_without_numbers_the_middlewares_count_is_all_there_is():
    accounting, _ = books()
    accounting.lost(2, numbered=False)
    accounting.lost(-1, numbered=False)
    assert accounting.snapshot().drops == {LOST: 2}


def test_counts_never_fall():
    accounting, now = books()
    before = 0
    for step in range(200):
        now[0] = step * 0.05
        accounting.received()
        accounting.answered({})
        if step % 7 == 0:
            accounting.skipped(2)
        if step % 14 == 1:
            accounting.lost(2)
        snapshot = accounting.snapshot()
        assert snapshot.frames_in == snapshot.frames_out + snapshot.frames_dropped >= before
        before = snapshot.frames_in
    now[0] += SETTLING
    assert accounting.snapshot().drops == {LOST: 2 * 15, SUPERSEDED: 2 * (29 - 15)}

"""The autopilot's clock against ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gps_denied_inference.autopilot.timesync import JUMP_NS, ClockMap

MS = 1_000_000


@given(
    st.integers(0, 10**18),
    st.lists(st.tuples(st.integers(0, 40 * MS), st.integers(0, 40 * MS)), min_size=1, max_size=30),
)
def test_the_offset_is_within_half_the_shortest_round_trip(offset, ways):
    clocks = ClockMap()
    for step, (there, back) in enumerate(ways):
        sent = offset + 1_000_000_000 + step * 250 * MS
        clocks.exchanged(sent, sent + there - offset, sent + there + back)
    newest = ways[-16:]
    shortest = min(there + back for there, back in newest)
    assert clocks.jumps == 0
    assert abs(clocks.offset_ns - offset) <= shortest // 2 + 1
    assert clocks.uncertainty == pytest.approx(shortest * 0.5e-9)


def test_nothing_is_known_before_anything_came():
    clocks = ClockMap()
    assert clocks.to_ros(5) is None
    assert clocks.to_autopilot(5) is None
    assert not clocks.is_synchronised


def test_a_jump_of_its_clock_is_taken_at_once_and_counted():
    clocks = ClockMap()
    for step in range(10):
        clocks.exchanged(step * 250 * MS, step * 250 * MS + MS - 7, step * 250 * MS + 2 * MS)
    clocks.exchanged(3000 * MS, 3001 * MS + 90_000 * MS, 3002 * MS)
    assert clocks.jumps == 1
    assert clocks.offset_ns == -90_000 * MS
    assert clocks.to_ros(93_001 * MS) == 3001 * MS


def test_without_answers_arrival_gives_the_offset_and_restarts_are_seen():
    clocks = ClockMap()
    for step in range(20):
        clocks.arrived(step * 20 * MS, 5000 * MS + step * 20 * MS + (step % 3) * MS)
    assert clocks.offset_ns == 5000 * MS
    assert clocks.jumps == 0
    clocks.arrived(0, 60_000 * MS)
    assert clocks.jumps == 1
    assert clocks.offset_ns == 60_000 * MS


def test_a_slow_packet_is_no_jump():
    clocks = ClockMap()
    clocks.arrived(0, 0)
    clocks.arrived(100 * MS, 100 * MS + JUMP_NS * 5)
    assert clocks.jumps == 0
    assert clocks.offset_ns == 0


def test_our_own_clock_set_back_between_question_and_answer_is_ignored():
    clocks = ClockMap()
    clocks.exchanged(100 * MS, 5 * MS, 50 * MS)
    assert not clocks.is_synchronised

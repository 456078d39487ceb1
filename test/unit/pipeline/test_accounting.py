"""Frames are never lost from the books."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gps_denied_inference.pipeline.accounting import FrameAccounting, summed_up
from gps_denied_inference.pipeline.slot import NewestSlot


@given(st.lists(st.sampled_from(["answered", "superseded", "malformed"]), max_size=60))
def test_in_is_out_plus_drops(fates):
    accounting = FrameAccounting()
    for fate in fates:
        accounting.received()
        if fate == "answered":
            accounting.answered({"infer": 0.01})
        else:
            accounting.dropped(fate)
    snapshot = accounting.snapshot()
    assert snapshot.frames_in == len(fates)
    assert snapshot.frames_out == fates.count("answered")
    assert snapshot.drops == {reason: fates.count(reason) for reason in set(fates) - {"answered"}}
    assert snapshot.frames_in == snapshot.frames_out + snapshot.frames_dropped


def test_percentiles_and_rate_are_those_of_the_samples():
    now = [0.0]
    accounting = FrameAccounting(lambda: now[0])
    assert np.isnan(accounting.snapshot().rate)
    assert np.isnan(accounting.snapshot().time_since_frame)
    for index in range(100):
        now[0] = index * 0.04
        accounting.received()
        accounting.answered({"infer": (index + 1) * 1e-3})
    now[0] += 0.04
    snapshot = accounting.snapshot()
    assert snapshot.rate == pytest.approx(25.0, rel=0.02)
    assert snapshot.time_since_frame == pytest.approx(0.04)
    assert snapshot.latencies["infer"].p50 == pytest.approx(0.0505)
    assert snapshot.latencies["infer"].p95 == pytest.approx(0.09505)


def test_a_slot_keeps_the_newest_and_accounts_for_the_rest():
    slot: NewestSlot[int] = NewestSlot()
    taken: list[int] = []
    displaced: list[int] = []

    def work():
        while (item := slot.take()) is not None:
            taken.append(item)

    worker = threading.Thread(target=work)
    worker.start()
    for item in range(1, 2001):
        out = slot.put(item)
        if out is not None:
            displaced.append(out)
    left = slot.close()
    worker.join(timeout=5)
    assert not worker.is_alive()
    assert sorted([*taken, *displaced, *([left] if left is not None else [])]) == list(
        range(1, 2001)
    )
    assert taken == sorted(taken)
    assert slot.put(5) == 5


def test_the_books_of_several_cameras_together():
    now = [0.0]
    left, right, idle = (FrameAccounting(lambda: now[0]) for _ in range(3))
    for index in range(100):
        now[0] = index * 0.04
        left.received(1 + index * 40_000_000)
        left.answered({"infer": 0.010})
        if index % 2:
            right.received(1 + index * 40_000_000)
            right.answered({"infer": 0.030, "track": 0.002})
        else:
            right.received()
            right.dropped("superseded")
    now[0] += 0.04
    both = summed_up([left, right, idle])
    assert (both.frames_in, both.frames_out) == (200, 150)
    assert both.drops == {"superseded": 50}
    assert both.rate == pytest.approx(25.0 + 12.5, rel=0.03)
    assert both.time_since_frame == pytest.approx(0.04)
    assert both.latencies["infer"].p50 == pytest.approx(0.010)
    assert both.latencies["infer"].p95 == pytest.approx(0.030)
    assert both.latencies["track"].p99 == pytest.approx(0.002)
    assert np.isnan(both.stamps.period)  # two cameras' stamps make no period
    assert left.snapshot().stamps.period == pytest.approx(0.04)
    assert np.isnan(summed_up([idle]).rate)

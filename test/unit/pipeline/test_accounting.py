"""Frames are never lost from the books."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gps_denied_inference.pipeline.accounting import FrameAccounting
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

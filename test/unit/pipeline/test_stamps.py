"""Stamps that are zero, repeated, backward, uneven or with gaps are told from good ones."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gps_denied_inference.pipeline.accounting import FrameAccounting
from gps_denied_inference.pipeline.stamps import StampSummary, StampWatch

MS = 1_000_000
PERIOD = 40 * MS


def watched(stamps):
    watch = StampWatch()
    for stamp in stamps:
        watch.received(int(stamp))
    return watch.summary()


def test_a_good_camera():
    found = watched(range(PERIOD, 50 * PERIOD, PERIOD))
    assert found == StampSummary(period=pytest.approx(0.04), jitter=pytest.approx(0.0, abs=1e-9))


def test_nothing_is_known_of_few_frames():
    found = watched([PERIOD, 2 * PERIOD])
    assert math.isnan(found.period)
    assert math.isnan(found.jitter)
    assert found.gaps == 0


def test_jitter_is_the_standard_deviation():
    noise = np.random.default_rng(0).normal(0.0, 2.0, 65)
    intervals = (PERIOD + noise * MS).astype(int)
    found = watched(1 + np.cumsum(intervals))
    assert found.period == pytest.approx(0.04, abs=0.001)
    assert found.jitter == pytest.approx(0.002, rel=0.2)


def test_zero_repeated_and_backward_stamps():
    good = list(range(PERIOD, 20 * PERIOD, PERIOD))
    found = watched([*good, good[-1], good[-1], 0, 0, 0, 30 * PERIOD, PERIOD, 2 * PERIOD])
    assert (found.zero, found.repeated, found.backward) == (3, 2, 1)
    assert found.gaps == 0


def test_frames_that_the_camera_did_not_send():
    steps = [1] * 20 + [3] + [1] * 5 + [2] + [1] * 5
    found = watched(np.cumsum(steps) * PERIOD)
    assert (found.gaps, found.missing) == (2, 3)
    assert found.period == pytest.approx(0.04)
    assert found.jitter == pytest.approx(0.0, abs=1e-9)


def test_another_rate_is_no_gap_for_long():
    found = watched(np.cumsum([1] * 70 + [3] * 70) * PERIOD)
    assert found.period == pytest.approx(0.12)
    assert found.gaps < 40


def test_frames_lost_on_the_way_are_no_gap_of_the_camera():
    accounting = FrameAccounting()
    for number in range(1, 21):
        accounting.received(number * PERIOD)
    accounting.skipped(2)
    accounting.received(23 * PERIOD)
    accounting.received(24 * PERIOD)
    accounting.received(27 * PERIOD)
    stamps = accounting.snapshot().stamps
    assert (stamps.gaps, stamps.missing) == (1, 2)
    assert stamps.period == pytest.approx(0.04)

"""Figures of an evaluation."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from gps_denied_inference.evaluation.frames import FrameRecord
from gps_denied_inference.evaluation.page import render
from gps_denied_inference.evaluation.running import Outcome
from gps_denied_inference.evaluation.score import inside, row_of, summarise
from gps_denied_inference.pipeline.localization.fix import Attempt, FrameFix
from gps_denied_inference.pipeline.localization.flight import FlightEstimate
from gps_denied_inference.pipeline.localization.plan import Optics
from gps_denied_inference.pipeline.localization.prior import Prior


def outcome(off=None, axis=0j, sigma=1.0, estimate=None, reason="ambiguous"):
    fix = None
    if off is not None:
        at = (axis or 0j) + off
        fix = FrameFix(
            at.real, at.imag, np.eye(2) * sigma**2, None, None, 0.0, 0.1, 100.0, 0.01, 30, 5, (1,),
            np.zeros((0, 2)), np.zeros((0, 2)), 0.5, 9.0,
        )  # fmt: skip
    attempt = Attempt(fix, "" if fix else reason, (fix,) if fix else (), 8, 100, {"match": 0.5})
    record = FrameRecord(Path("f.jpg"), axis=axis, height=100.0)
    return Outcome(record, Prior(), Optics.assumed(960, 540), attempt, estimate, 0.25)


def test_figures_of_single_frames():
    outcomes = [outcome(), outcome(3 + 4j), outcome(1 + 0j), outcome(100 + 0j), outcome()]
    figures = summarise(outcomes, 25.0)
    assert figures["frames"] == 5
    assert figures["fixes"] == 3
    assert figures["wrong"] == 1
    assert figures["right"] == 2
    assert figures["median_error_m"] == 5.0
    assert figures["first_fix_after_frames"] == 2
    assert figures["right_share_after_first"] == 0.5
    assert figures["inside_2_sigma_share"] == pytest.approx(1 / 3)
    assert figures["nees_mean"] == pytest.approx((25 + 1 + 10_000) / 3)
    assert figures["time_per_fix_ms"] == pytest.approx(250.0)
    assert figures["reasons"] == {"ambiguous": 2}
    assert figures["stages_ms"] == {"match": 500.0}


def test_a_fix_of_a_frame_without_a_place_is_wrong():
    figures = summarise([outcome(1 + 0j, axis=None), outcome(axis=None)], 25.0)
    assert (figures["fixes"], figures["wrong"], figures["first_fix_after_frames"]) == (1, 1, None)
    assert math.isnan(figures["median_error_m"])


def test_with_a_filter_its_word_counts_not_the_frames():
    nothing = float("nan")
    lost = FlightEstimate("lost", nothing, nothing, np.full((2, 2), nothing), nothing, nothing,
                          0.0, 0, 0, 0)  # fmt: skip
    located = FlightEstimate("located", 2.0, 0.0, np.eye(2) * 4, 0.0, 100.0, 0.99, 1, 1, 3)
    figures = summarise([outcome(0j, estimate=lost), outcome(estimate=located)], 25.0)
    assert figures["fixes"] == 1
    assert figures["median_error_m"] == 2.0
    assert figures["states"] == {"lost": 1, "located": 1}
    assert figures["resets"] == 1


def test_ellipses_hold_what_intervals_do():
    errors = np.random.default_rng(0).normal(size=(20_000, 2))
    nees = list((errors**2).sum(axis=1))
    assert inside(nees, 1) == pytest.approx(0.683, abs=0.01)
    assert inside(nees, 2) == pytest.approx(0.954, abs=0.01)
    assert math.isnan(inside([], 2))


def test_the_page_holds_everything_and_escapes_it():
    rows = [row_of(outcome(3 + 4j))]
    text = render("a <b>", {"map": "x"}, {"fixes": 3, "max": float("nan")}, {"CDF": b"png"},
                  [("best: <f>", b"png")], rows)  # fmt: skip
    assert "a &lt;b&gt;" in text
    assert "best: &lt;f&gt;" in text
    assert text.count("data:image/png;base64,") == 2
    assert "not known" in text
    assert "f.jpg" in text

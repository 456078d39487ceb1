"""The flight's filter: it decides between places, carries, gates, loses and finds again."""

from __future__ import annotations

import cmath
import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gps_denied_inference.pipeline.localization.fix import Attempt, FrameFix
from gps_denied_inference.pipeline.localization.flight import FlightFilter, FlightRules
from gps_denied_inference.pipeline.localization.hypothesis import GATE, Hypothesis
from gps_denied_inference.pipeline.localization.motion import Motion
from gps_denied_inference.pipeline.localization.prior import Prior, rotation
from gps_denied_inference.pipeline.localization.similarity import Similarity

WIDTH, REACH = 1.2, 120.0
shifts = st.floats(-0.3, 0.3)


def fix(at, heading=0.3, reach=REACH, inliers=80, runner_up=5, sigma=1.0):
    return FrameFix(
        east=at.real, north=at.imag, covariance=np.eye(2) * sigma**2, camera=None,
        camera_covariance=None, heading=heading, heading_sigma=0.01, reach=reach,
        reach_sigma=0.02, inliers=inliers, runner_up=runner_up, tiles=(1, 2),
        rays=np.zeros((0, 2)), ground=np.zeros((0, 2)), rms=0.5, confidence=20.0,
    )  # fmt: skip


def found(*places):
    return Attempt(places[0], "", tuple(places), 8, 500)


def unsure(*places):
    return Attempt(None, "ambiguous", tuple(places), 8, 500)


NOTHING = Attempt(None, "no_place", (), 8, 500)


def motion(shift, turn=0.0, scale=1.0):
    return Motion(Similarity(scale * cmath.exp(1j * turn), shift), 0.002, 0.003, 0.003, 200)


class Flight:
    """A true flight: position, heading and reach, and the motion that a camera would see."""

    def __init__(self, at=10 + 20j, heading=0.3, reach=REACH, seed=0):
        self.at, self.heading, self.reach = at, heading, reach
        self.random = np.random.default_rng(seed)

    def step(self, shift=0.06 + 0.02j, turn=0.02, scale=1.004):
        self.at += shift * self.reach * cmath.exp(-1j * self.heading)
        self.heading -= turn
        self.reach *= scale
        noise = complex(*self.random.normal(0, 0.001, 2))
        return motion(shift + noise, turn + self.random.normal(0, 0.001), scale)

    def fix(self, **other):
        near = self.at + complex(*self.random.normal(0, 1.0, 2))
        return fix(near, self.heading, self.reach, **other)

    def off(self, estimate):
        return abs(estimate.at - self.at)


def located(flight=None, rules=None):
    flight, carried = flight or Flight(), FlightFilter(WIDTH, rules)
    for _ in range(4):
        carried.move(flight.step(), 0.1)
        carried.update(found(flight.fix()))
    assert carried.estimate.state == "located"
    return flight, carried


class TestMotion:
    @settings(max_examples=30)
    @given(turn=st.floats(-3.0, 3.0), scale=st.floats(0.7, 1.4), x=st.floats(-0.3, 0.3),
           y=st.floats(-0.3, 0.3), seed=st.integers(0, 10**6))  # fmt: skip
    def test_it_is_found_among_wrong_pairs(self, turn, scale, x, y, seed):
        random = np.random.default_rng(seed)
        now = random.uniform(-0.6, 0.6, (150, 2))
        truth = Similarity(scale * cmath.exp(1j * turn), complex(x, y))
        before = truth(now[:, 0] - 1j * now[:, 1])
        before[100:] = random.uniform(-0.6, 0.6, 50) + 1j * random.uniform(-0.6, 0.6, 50)
        seen = Motion.between(np.column_stack([before.real, -before.imag]), now)
        assert seen is not None
        assert abs(seen.similarity.b - truth.b) < 0.003
        assert seen.similarity.scale == pytest.approx(scale, rel=0.01)

    def test_unrelated_frames_have_none(self):
        random = np.random.default_rng(1)
        assert (
            Motion.between(random.uniform(-1, 1, (200, 2)), random.uniform(-1, 1, (200, 2))) is None
        )
        assert Motion.between(np.zeros((0, 2)), np.zeros((0, 2))) is None
        assert Motion.between(np.full((90, 2), np.nan), np.full((90, 2), np.nan)) is None


class TestHypothesis:
    def test_it_goes_where_the_aircraft_goes(self):
        flight = Flight()
        carried = Hypothesis.of(fix(flight.at, flight.heading, flight.reach), 1, 1.0)
        for _ in range(60):
            carried = carried.carried(flight.step(), WIDTH)
        way = 60 * 0.063 * REACH
        assert abs(carried.at - flight.at) < 0.02 * way
        assert carried.mean[2] == pytest.approx(
            math.remainder(flight.heading, 2 * math.pi), abs=0.05
        )
        assert carried.reach == pytest.approx(flight.reach, rel=0.02)

    @settings(max_examples=40)
    @given(steps=st.lists(st.tuples(shifts, shifts, st.floats(-1.0, 1.0), st.floats(0.8, 1.25)),
                          max_size=12))  # fmt: skip
    def test_the_covariance_stays_one_and_grows(self, steps):
        carried = Hypothesis.of(fix(0j), 1, 1.0)
        before = np.linalg.det(carried.covariance)
        for x, y, turn, scale in steps:
            carried = carried.carried(motion(complex(x, y), turn, scale), WIDTH)
            now = np.linalg.det(carried.covariance)
            assert np.linalg.eigvalsh(carried.covariance)[0] > 0.0
            assert now > before
            before = now
        drawn = carried.corrected(fix(carried.at, float(carried.mean[2]), carried.reach), 1.0)
        assert np.linalg.eigvalsh(drawn.covariance)[0] > 0.0
        assert np.linalg.det(drawn.covariance) < before

    def test_headings_meet_across_north(self):
        west = Hypothesis.of(fix(0j, heading=math.pi - 0.01), 1, 1.0)
        assert west.distance(fix(0j, heading=-math.pi + 0.01), 0.0) < GATE
        assert abs(west.corrected(fix(0j, heading=-math.pi + 0.01), 1.0).mean[2]) > 3.1


class TestFlightFilter:
    def test_it_begins_with_no_prior_and_is_located_by_fixes_that_agree(self):
        flight, carried = Flight(), FlightFilter(WIDTH)
        assert carried.estimate.state == "lost"
        assert carried.prior(Prior()) is None
        carried.update(found(flight.fix()))
        assert carried.estimate.state == "searching"
        assert math.isnan(carried.estimate.east)
        for _ in range(3):
            carried.move(flight.step(), 0.1)
            carried.update(found(flight.fix()))
        estimate = carried.estimate
        assert estimate.state == "located"
        assert flight.off(estimate) < 4.0
        assert estimate.confidence > 0.95
        assert np.linalg.eigvalsh(estimate.covariance)[0] > 0.0

    def test_one_frame_settles_it_where_nothing_else_comes_near(self):
        carried = FlightFilter(WIDTH)
        carried.update(found(fix(5 + 5j, inliers=200)))
        assert carried.estimate.state == "located"
        assert FlightFilter(WIDTH).estimate.state == "lost"
        rivalled = FlightFilter(WIDTH)
        rivalled.update(found(fix(5 + 5j, inliers=200, runner_up=130)))
        assert rivalled.estimate.state == "searching"

    def test_places_that_no_frame_is_believed_for_decide_together(self):
        """Each frame has two places alike; only one of them moves as the aircraft does."""
        flight, carried = Flight(), FlightFilter(WIDTH)
        for _ in range(12):
            carried.move(flight.step(shift=0.25 + 0.1j), 0.5)
            mirage = complex(*flight.random.uniform(-400, 400, 2))
            strong = fix(mirage, flight.random.uniform(-3, 3), inliers=24, runner_up=22)
            carried.update(unsure(strong, flight.fix(inliers=22, runner_up=24)))
            if carried.estimate.state == "located":
                assert flight.off(carried.estimate) < 10.0
        carried.move(flight.step(shift=0.25 + 0.1j), 0.5)
        carried.update(unsure(flight.fix(inliers=30, runner_up=12)))
        assert flight.off(max(carried._hypotheses, key=lambda h: h.log_odds)) < 10.0

    def test_one_look_alike_in_a_hover_is_not_believed_however_often_it_is_seen(self):
        carried = FlightFilter(WIDTH)
        for _ in range(100):
            carried.move(motion(0j), 0.1)
            carried.update(unsure(fix(50 + 50j, inliers=18, runner_up=12)))
            assert carried.estimate.state != "located"

    def test_it_flies_on_by_motion_where_the_map_shows_nothing(self):
        flight, carried = located()
        for _ in range(25):
            carried.move(flight.step(), 0.1)
            carried.update(NOTHING)
        estimate = carried.estimate
        assert estimate.state == "located"
        assert estimate.silent == 25
        vector = np.array([(estimate.at - flight.at).real, (estimate.at - flight.at).imag])
        assert vector @ np.linalg.solve(estimate.covariance, vector) < 13.8
        assert flight.off(estimate) < 8.0

    def test_a_place_that_says_nothing_does_not_draw_it_however_wide_the_gate(self):
        _, carried = located()
        carried.move(None, 1.0)
        before = carried.estimate
        weak = fix(before.at + 15.0, before.heading, before.reach, inliers=10)
        carried.update(unsure(weak))
        assert carried.estimate.at == before.at
        assert np.allclose(carried.estimate.covariance, before.covariance)
        assert carried.estimate.silent > 0

    def test_the_maps_own_error_does_not_average_out(self):
        flight, carried = Flight(), FlightFilter(WIDTH)
        for _ in range(12):
            carried.move(flight.step(), 0.1)
            seen = dataclasses.replace(
                flight.fix(), covariance=np.eye(2) * (1.0 + 3.0**2), map_sigma=3.0
            )
            carried.update(found(seen))
        variances = np.linalg.eigvalsh(carried.estimate.covariance)
        assert variances[0] > 3.0**2
        assert variances[1] < 3.0**2 + 1.0

    def test_a_fix_outside_the_gate_does_not_draw_it(self):
        flight, carried = located()
        carried.move(flight.step(), 0.1)
        carried.update(found(fix(flight.at + 300, flight.heading)))
        assert carried.estimate.state == "located"
        assert flight.off(carried.estimate) < 4.0
        assert carried.estimate.resets == 0

    @pytest.mark.parametrize("other", [{"heading": 1.4}, {"reach": 70.0}])
    def test_a_fix_at_the_place_with_another_heading_or_scale_is_outside_the_gate(self, other):
        flight, carried = located()
        before = carried.estimate
        carried.move(flight.step(), 0.1)
        carried.update(found(fix(flight.at + 3, **{"heading": flight.heading, **other})))
        assert abs(carried.estimate.heading - before.heading) < 0.05
        assert carried.estimate.reach == pytest.approx(before.reach, rel=0.03)

    def test_it_jumps_only_when_the_flight_has_decided_and_counts_it(self):
        flight, carried = located()
        other = Flight(at=flight.at + 400, heading=flight.heading)
        for _ in range(15):
            carried.move(other.step(), 0.1)
            flight.step()
            carried.update(found(other.fix()))
        assert carried.estimate.state == "located"
        assert other.off(carried.estimate) < 5.0
        assert carried.estimate.resets == 1

    def test_fixes_that_jitter_as_relief_makes_them_are_one_flight(self):
        flight, carried = located()
        for sign in (1, -1) * 6:
            carried.move(flight.step(), 0.1)
            carried.update(found(fix(flight.at + 3.0 * sign, flight.heading, flight.reach,
                                     inliers=90, sigma=0.3)))  # fmt: skip
            assert carried.estimate.hypotheses == 1
        assert carried.estimate.resets == 0

    def test_it_is_lost_when_motion_and_map_are_and_recovers(self):
        flight, carried = located()
        for _ in range(20):
            carried.move(None, 0.5)
            carried.update(NOTHING)
        assert carried.estimate.state == "lost"
        assert carried.estimate.hypotheses == 0
        assert carried.prior(Prior()) is None
        for _ in range(4):
            carried.move(flight.step(), 0.1)
            carried.update(found(flight.fix()))
        assert carried.estimate.state == "located"
        assert flight.off(carried.estimate) < 4.0

    def test_a_flight_off_the_map_is_never_located(self):
        random, carried = np.random.default_rng(3), FlightFilter(WIDTH)
        for _ in range(200):
            carried.move(motion(0.1 + 0j), 0.2)
            spots = [
                fix(complex(*random.uniform(-300, 300, 2)), random.uniform(-3, 3),
                    inliers=int(random.integers(5, 24)), runner_up=int(random.integers(4, 15)))
                for _ in range(4)
            ]  # fmt: skip
            carried.update(unsure(*sorted(spots, key=lambda f: -f.inliers)))
            assert carried.estimate.state == "lost"

    def test_the_next_search_is_narrowed_to_the_prediction(self):
        flight, carried = located()
        prior = carried.prior(Prior(height=500.0, height_sigma=90.0))
        assert prior is not None
        assert abs(complex(*prior.position) - flight.at) < 4.0
        assert prior.position_sigma < 10.0
        assert prior.height == pytest.approx(flight.reach, rel=0.03)
        assert math.remainder(prior.heading - flight.heading, 2 * math.pi) == pytest.approx(
            0, abs=0.03
        )

    def test_a_prior_that_is_wrong_does_not_keep_it_lost(self):
        """Every fourth frame is searched without the position once ten were not found."""
        carried = FlightFilter(WIDTH)
        base = Prior(position=(500.0, 0.0), position_sigma=50.0, height=100.0, height_sigma=10.0)
        wide = 0
        for _ in range(30):
            searched = carried.search(base)
            assert searched.height == 100.0
            wide += searched.position is None
            carried.move(motion(0.1 + 0j), 0.2)
            carried.update(NOTHING)
        assert wide == 5
        assert all(FlightFilter(WIDTH).search(base) == base for _ in range(5))

    def test_a_flight_that_is_not_found_where_it_is_expected_is_searched_further(self):
        flight, carried = located()
        base = Prior(height=100.0, height_sigma=10.0)
        searched = []
        for _ in range(24):
            searched.append(carried.search(base))
            carried.move(flight.step(), 0.1)
            carried.update(NOTHING)
        assert all(prior.position is not None for prior in searched[:10])
        assert sum(prior == base for prior in searched) == 3

    def test_a_leaning_camera_is_searched_from_where_it_is(self):
        _, carried = located()
        down = np.array([0.1, -0.2, 1.0]) / np.linalg.norm([0.1, -0.2, 1.0])
        prior = carried.prior(Prior(down=tuple(down), down_sigma=0.01))
        assert prior is not None
        ahead = rotation(prior.heading, down)[:, 2]
        axis = complex(*prior.position) + prior.height / -ahead[2] * complex(ahead[0], ahead[1])
        assert axis == pytest.approx(carried.estimate.at, abs=1e-6)

    @pytest.mark.parametrize("down", [(0.0, 1.0, 0.0), (0.0, 0.0, -1.0), (1.0, 0.0, 0.1)])
    def test_a_camera_that_does_not_look_down_is_expected_nowhere(self, down):
        _, carried = located()
        base = Prior(down=down, down_sigma=0.01)
        assert carried.prior(base) is None
        assert carried.search(base) == base

    def test_evidence_of_the_same_ground_weighs_a_quarter(self):
        hover, cruise = FlightFilter(WIDTH), FlightFilter(WIDTH)
        for carried, shift in ((hover, 0j), (cruise, 0.3 + 0j)):
            flight = Flight()
            for _ in range(3):
                carried.move(flight.step(shift=shift, turn=0.0, scale=1.0), 0.1)
                carried.update(found(flight.fix(inliers=30)))
        assert cruise.estimate.confidence > hover.estimate.confidence

    def test_doubt_can_win_however_long_it_flew(self):
        flight, carried = located()
        for _ in range(300):
            carried.move(flight.step(), 0.1)
            carried.update(found(flight.fix()))
        assert carried._hypotheses[0].log_odds <= FlightRules().most_odds

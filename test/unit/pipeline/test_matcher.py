"""Mutual nearest neighbours against a plain loop; the engine matcher against a stand-in runtime."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gps_denied_inference.errors import InputMismatchError, InvalidParameterError
from gps_denied_inference.pipeline.features import Features
from gps_denied_inference.pipeline.matcher import EngineMatcher, Matches, MutualNearestNeighbour
from gps_denied_inference.runtimes.contract import BuildConfig, TensorSpec


def features(descriptors, seed=0, model="xfeat", sha="aa"):
    descriptors = np.asarray(descriptors, np.float32)
    keypoints = np.random.default_rng(seed).uniform(0, 400, (len(descriptors), 2))
    return Features(
        keypoints.astype(np.float32),
        np.linspace(1, 0.1, len(descriptors), dtype=np.float32),
        descriptors,
        640,
        480,
        model,
        sha,
    )


def unit(rng, count, dim=16):
    d = rng.normal(size=(count, dim))
    return (d / np.linalg.norm(d, axis=1, keepdims=True)).astype(np.float32)


def by_hand(a, b, min_cosine, ratio):
    """Say what mutual nearest neighbours are, one pair at a time."""
    cosine = a @ b.T
    pairs = []
    for i in range(len(a) if len(b) else 0):
        j = int(np.argmax(cosine[i]))
        if int(np.argmax(cosine[:, j])) != i or cosine[i, j] < min_cosine:
            continue
        if ratio is not None:
            row, column = np.sort(cosine[i])[::-1], np.sort(cosine[:, j])[::-1]
            seconds = [line[1] for line in (row, column) if len(line) > 1]
            limits = [ratio**2 * (1 - second) for second in seconds]
            if any(1 - cosine[i, j] > limit for limit in limits):
                continue
        pairs.append((i, j))
    return pairs


@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.tuples(st.integers(0, 30), st.integers(0, 30)),
    min_cosine=st.sampled_from([-1.0, 0.0, 0.3, 0.82]),
    ratio=st.sampled_from([None, 0.6, 0.9]),
)
def test_mutual_nearest_neighbours_are_what_they_are_called(seed, sizes, min_cosine, ratio):
    rng = np.random.default_rng(seed)
    a, b = unit(rng, sizes[0], 6), unit(rng, sizes[1], 6)
    query, reference = features(a, 1), features(b, 2)
    got = MutualNearestNeighbour(min_cosine, ratio).match(query, reference)
    pairs = list(zip(got.query_indices.tolist(), got.reference_indices.tolist(), strict=True))
    assert pairs == by_hand(a, b, min_cosine, ratio)
    np.testing.assert_array_equal(got.query_points, query.keypoints[got.query_indices])
    np.testing.assert_array_equal(got.reference_points, reference.keypoints[got.reference_indices])
    assert ((got.scores >= 0) & (got.scores <= 1)).all()
    assert got.query_indices.dtype == got.reference_indices.dtype == np.int32


def test_equal_descriptors_give_a_feature_one_partner_at_most():
    same = np.tile(unit(np.random.default_rng(0), 1), (5, 1))
    got = MutualNearestNeighbour().match(features(same), features(same[:3]))
    assert len(set(got.reference_indices.tolist())) == got.count == 1


@pytest.mark.parametrize(
    "options", [{"min_cosine": 1.5}, {"min_cosine": float("nan")}, {"ratio": 0.0}, {"ratio": 1.1}]
)
def test_options_out_of_bounds(options):
    with pytest.raises(InvalidParameterError):
        MutualNearestNeighbour(**options)


@pytest.mark.parametrize("other", [{"model": "aliked"}, {"sha": "bb"}])
def test_descriptors_of_two_networks_are_not_compared(other):
    d = unit(np.random.default_rng(0), 4)
    with pytest.raises(InputMismatchError, match="cannot be compared"):
        MutualNearestNeighbour().match(features(d), features(d, **other))


def test_select_keeps_rows_together():
    d = unit(np.random.default_rng(0), 6)
    matches = MutualNearestNeighbour().match(features(d), features(d[::-1]))
    part = matches.select(np.arange(6) % 2 == 0)
    assert part.query_indices.tolist() == [0, 2, 4]
    assert part.reference_indices.tolist() == [5, 3, 1]
    assert part.query_points.shape == part.reference_points.shape == (3, 2)


class OneToOne:
    """A runtime whose matcher joins equal rows, those out of use too."""

    def infer(self, handle, inputs):
        self.inputs = inputs
        k = len(inputs["keypoints0"])
        partner = np.arange(k, dtype=np.int32)
        partner[inputs["count1"][0] : inputs["count0"][0]] = -1
        return {
            "matches0": partner,
            "scores0": np.full(k, 0.5, np.float32),
        }


def engine(k, dim):
    specs = []
    for side in "01":
        specs += [
            TensorSpec(f"keypoints{side}", (k, 2), "float32"),
            TensorSpec(f"descriptors{side}", (k, dim), "float32"),
            TensorSpec(f"count{side}", (1,), "int32"),
            TensorSpec(f"size{side}", (2,), "float32"),
        ]
    model = SimpleNamespace(
        name="lighterglue", kind="matcher", descriptor_dim=dim, weights_sha256="aa"
    )
    config = BuildConfig(max_keypoints=k)
    readback = SimpleNamespace(runtime="stand-in")
    manifest = SimpleNamespace(model=model.name, weights_sha256=model.weights_sha256)
    entry = SimpleNamespace(model=model, config=config, manifest=manifest)
    return SimpleNamespace(inputs=tuple(specs), entry=entry, readback=readback, running=nullcontext)


def test_engine_matcher_pads_and_ignores_the_padding():
    rng = np.random.default_rng(0)
    query, reference = features(unit(rng, 7), 1), features(unit(rng, 4), 2)
    runtime = OneToOne()
    got = EngineMatcher(runtime, engine(10, 16)).match(query, reference)
    assert got.query_indices.tolist() == got.reference_indices.tolist() == [0, 1, 2, 3]
    inputs = runtime.inputs
    assert inputs["keypoints0"].shape == (10, 2)
    assert inputs["descriptors1"].shape == (10, 16)
    assert inputs["count0"].tolist() == [7]
    assert inputs["count1"].tolist() == [4]
    assert inputs["size0"].tolist() == [640.0, 480.0]
    np.testing.assert_array_equal(inputs["descriptors0"][:7], query.descriptors)
    assert not inputs["descriptors0"][7:].any()
    assert {inputs[s.name].dtype.name for s in engine(10, 16).inputs} == {"float32", "int32"}


def test_engine_matcher_keeps_the_best_of_too_many():
    d = unit(np.random.default_rng(0), 9)
    runtime = OneToOne()
    got = EngineMatcher(runtime, engine(5, 16)).match(features(d), features(d))
    assert got.query_indices.tolist() == list(range(5))
    np.testing.assert_array_equal(runtime.inputs["descriptors0"], d[:5])


def test_engine_matcher_refuses_other_descriptors_and_skips_empty_sets():
    d = unit(np.random.default_rng(0), 4, 64)
    matcher = EngineMatcher(OneToOne(), engine(5, 16))
    with pytest.raises(InputMismatchError, match="16 values"):
        matcher.match(features(d), features(d))
    assert matcher.match(features(d[:0]), features(d)).count == 0
    assert Matches.none().query_points.shape == (0, 2)


@pytest.mark.parametrize("ratio", [None, 0.9])
def test_some_rows_are_matched_as_all_of_them_are(ratio):
    rng = np.random.default_rng(4)
    d = rng.normal(size=(300, 32)).astype(np.float32)
    seen = d + 0.3 * rng.normal(size=d.shape).astype(np.float32)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (d, seen[rng.permutation(300)])]
    query, reference = features(unit[0]), features(unit[1])
    matcher = MutualNearestNeighbour(min_cosine=0.5, ratio=ratio)
    rows = np.arange(0, 300, 7)
    every, some = matcher.match(query, reference), matcher.match_some(query, reference, rows)
    expected = every.select(np.isin(every.query_indices, rows))
    assert some.count > 20
    np.testing.assert_array_equal(some.query_indices, expected.query_indices)
    np.testing.assert_array_equal(some.reference_indices, expected.reference_indices)
    np.testing.assert_allclose(some.scores, expected.scores, rtol=1e-5)
    assert matcher.match_some(query, reference, rows[:0]).count == 0

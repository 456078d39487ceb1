"""Mutual nearest neighbours: the graph, the torch module and plain numpy agree."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from gps_denied_inference.errors import InvalidParameterError
from gps_denied_inference.models import zoo
from gps_denied_inference.models.registry import load_module
from gps_denied_inference.models.specialise import specialised_graph
from gps_denied_inference.runtimes.contract import BuildConfig

KEYPOINTS = 64
INPUTS = [f"{n}{i}" for i in (0, 1) for n in ("keypoints", "descriptors", "count", "size")]


def features(count: int, seed: int, like: np.ndarray | None = None, noise: float = 0.0) -> list:
    random = np.random.default_rng(seed)
    descriptors = np.zeros((KEYPOINTS, 64), np.float32)
    fresh = random.normal(size=(count, 64))
    if like is not None:
        known = min(count, len(like))
        fresh[:known] = like[:known] + noise * random.normal(size=(known, 64))
    descriptors[:count] = fresh / np.linalg.norm(fresh, axis=1, keepdims=True)
    keypoints = np.zeros((KEYPOINTS, 2), np.float32)
    return [keypoints, descriptors, np.array([count], np.int32), np.array([640, 480], np.float32)]


def plain(a: list, b: list, min_cosine: float, ratio: float) -> dict[int, int]:
    """The rule, written as plainly as it can be."""
    cosine = a[1][: a[2][0]] @ b[1][: b[2][0]].T
    found = {}
    for i in range(cosine.shape[0] if cosine.size else 0):
        j = int(cosine[i].argmax())
        if int(cosine[:, j].argmax()) != i or cosine[i, j] <= min_cosine:
            continue
        second = [
            np.sort(line)[-2] if len(line) > 1 else -1e4 for line in (cosine[i], cosine[:, j])
        ]
        if all(1 - cosine[i, j] <= ratio**2 * (1 - s) for s in second):
            found[i] = j
    return found


@pytest.mark.parametrize("backend", ["graph", "torch"])
@pytest.mark.parametrize("options", [{}, {"min_cosine": "0.5"}, {"ratio": "0.7"}])
@pytest.mark.parametrize("counts", [(60, 50), (64, 64), (1, 64), (0, 10), (10, 0), (1, 1)])
def test_finds_what_the_plain_rule_finds(
    backend: str, options: dict[str, str], counts: tuple[int, int]
) -> None:
    a = features(counts[0], 1)
    b = features(counts[1], 2, like=a[1][: counts[0]], noise=0.08)
    model = zoo.resolve("mutual_nearest_neighbour")
    config = BuildConfig(max_keypoints=KEYPOINTS, options=options)
    inputs = [*a, *b]
    if backend == "graph":
        content = specialised_graph(model, config).SerializeToString()
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        matches, scores = session.run(None, dict(zip(INPUTS, inputs, strict=True)))
    else:
        torch = pytest.importorskip("torch", reason="torch is not installed")
        module = load_module(model, config)
        matches, scores = (t.numpy() for t in module(*map(torch.from_numpy, inputs)))
    assert matches.dtype == np.int32
    assert scores.dtype == np.float32
    found = {i: int(j) for i, j in enumerate(matches) if j >= 0}
    rule = float(options.get("min_cosine", 0.82)), float(options.get("ratio", 1.0))
    assert found == plain(a, b, *rule)
    if min(counts) >= 50:
        assert len(found) > 5
    assert (scores[matches < 0] == 0).all()
    assert ((scores >= 0) & (scores <= 1)).all()


@pytest.mark.parametrize("options", [{"min_cosine": "much"}, {"min_cosine": "2"}, {"ratio": "-1"}])
def test_options_out_of_bounds_are_refused(options: dict[str, str]) -> None:
    model = zoo.resolve("mutual_nearest_neighbour")
    with pytest.raises(InvalidParameterError, match=next(iter(options))):
        specialised_graph(model, BuildConfig(options=options))


def test_in_half_precision_only_the_cosines_are() -> None:
    a = features(60, 1)
    b = features(60, 2, like=a[1][:60], noise=0.08)
    model = zoo.resolve("mutual_nearest_neighbour")
    config = BuildConfig(max_keypoints=KEYPOINTS, precision="fp16", device="cuda:0")
    graph = specialised_graph(model, config)
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    matches, scores = session.run(None, dict(zip(INPUTS, [*a, *b], strict=True)))
    wanted = plain(a, b, 0.82, 1.0)
    assert len(wanted) > 40
    assert {i: int(j) for i, j in enumerate(matches) if j >= 0} == wanted
    exact = (a[1] @ b[1].T)[list(wanted), list(wanted.values())]
    np.testing.assert_allclose(scores[list(wanted)], exact, atol=1e-3)
    assert not np.array_equal(scores[list(wanted)], exact)

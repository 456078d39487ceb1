"""Every runtime runs matchers too, and finds what the FP32 reference finds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conformance_cases import CASES, HEIGHT, WIDTH, Arrays, Case, K, network, scene, xfeat

from benchmarks.engines import matcher_inputs, pairs_of
from gps_denied_inference.engines.cache import EngineCache
from gps_denied_inference.models import zoo
from gps_denied_inference.models.registry import default_registry
from gps_denied_inference.runtimes import create_runtime
from gps_denied_inference.runtimes.contract import InferenceRuntime, Model

CPU = next(case for case in CASES if case.name == "onnxruntime-cpu")


def unpruned(case: Case, model: Model) -> dict[str, str]:
    """The case's options, and all layers of all keypoints where the network can leave some out."""
    prunes = "pruning" in default_registry.get(model.architecture).options
    return {**case.config.options, **({"pruning": "off"} if prunes else {})}


def answer(
    runtime: InferenceRuntime, case: Case, model: Model, *questions: Arrays, batch: int = 1
) -> list[Arrays]:
    # GPUs never prune: compared is the whole network.
    config = replace(case.config, options=unpruned(case, model), batch=batch)
    handle = runtime.deserialize_engine(runtime.compile_engine(model, config))
    found = [runtime.infer(handle, question) for question in questions]
    runtime.release_engine(handle)
    return found


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    reason = CPU.missing()
    if reason:
        pytest.skip(f"features come from {CPU.name}: {reason}")
    runtime = create_runtime("onnxruntime", cache=EngineCache(tmp_path_factory.mktemp("features")))
    still = scene(1)
    moved = np.roll(still, (8, 16), axis=(0, 1))
    found = answer(runtime, CPU, xfeat(CPU), {"image": still}, {"image": moved})
    return matcher_inputs(*found, (WIDTH, HEIGHT))


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("name", ["lighterglue"])
def test_finds_what_the_reference_finds(
    case: Case, name: str, inputs: Arrays, tmp_path: Path
) -> None:
    reason = case.missing()
    if reason:
        pytest.skip(f"{case.name}: {reason}")
    model = network(name, case)
    runtime = create_runtime(case.runtime, cache=EngineCache(tmp_path / "tried"), **case.options())
    if case.why_no_run():
        config = replace(case.config, options=unpruned(case, model))
        entry = runtime.compile_engine(model, config)
        assert {spec.name: spec.shape for spec in entry.manifest.outputs} == {
            "matches0": (K,),
            "scores0": (K,),
        }
        return
    (outputs,) = answer(runtime, case, model, inputs)
    found = pairs_of(outputs["matches0"])
    assert len(found) > 50
    moves = np.array([inputs["keypoints1"][j] - inputs["keypoints0"][i] for i, j in found])
    assert np.median(np.linalg.norm(moves - (16, 8), axis=1)) < 1.0
    if not case.parity:
        return  # it answers by its own rule
    exact = create_runtime("onnxruntime", cache=EngineCache(tmp_path / "reference"))
    (reference,) = answer(exact, CPU, zoo.resolve(name), inputs)
    wanted = pairs_of(reference["matches0"])
    least = 0.98 if case.config.precision == "fp32" else 0.95
    assert len(found & wanted) >= least * len(found | wanted)


def several(inputs: Arrays) -> list[Arrays]:
    """Pairs of sets that have little in common: as given, swapped, cut short, and empty."""
    sides = [(name[:-1], name[-1]) for name in inputs]
    swapped = {name + side: inputs[name + "10"[int(side)]] for name, side in sides}
    short = {**inputs, "count1": np.array([60], np.int32)}
    larger = {**inputs, "size0": inputs["size0"] * 2, "keypoints0": inputs["keypoints0"] * 2}
    empty = {**inputs, "count0": np.array([0], np.int32)}
    return [inputs, swapped, short, larger, empty]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_each_pair_of_several_is_answered_as_alone(
    case: Case, inputs: Arrays, tmp_path: Path
) -> None:
    reason = case.missing()
    if reason:
        pytest.skip(f"{case.name}: {reason}")
    model = network("lighterglue", case)
    runtime = create_runtime(case.runtime, cache=EngineCache(tmp_path), **case.options())
    pairs = several(inputs)
    if case.why_no_run():
        config = replace(case.config, options=unpruned(case, model), batch=len(pairs))
        entry = runtime.compile_engine(model, config)
        assert entry.manifest.outputs[0].shape == (len(pairs), K)
        return
    together = {name: np.stack([pair[name] for pair in pairs]) for name in inputs}
    (answers,) = answer(runtime, case, model, together, batch=len(pairs))
    assert answers["matches0"].shape == answers["scores0"].shape == (len(pairs), K)
    assert len(pairs_of(answers["matches0"][0])) > 50
    for place, alone in enumerate(answer(runtime, case, model, *pairs)):
        count = int(pairs[place]["count0"][0])
        wanted, got = (pairs_of(a[:count]) for a in (alone["matches0"], answers["matches0"][place]))
        if case.config.precision == "fp32":
            assert got == wanted
            scores = answers["scores0"][place][:count], alone["scores0"][:count]
            np.testing.assert_allclose(*scores, atol=1e-3)
        else:
            assert len(got & wanted) >= 0.95 * len(got | wanted)

"""One suite for every runtime: whoever passes it may replace any other.

Runtimes that this machine cannot run are skipped with the reason. Needs no ROS. The TensorRT
double is the real ``TensorrtRuntime`` over a stand-in for the library and for CUDA, so that its
own code is exercised on machines without a GPU.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conformance_cases import (
    CASES,
    HEIGHT,
    WIDTH,
    Arrays,
    Bench,
    Case,
    K,
    agreement,
    fp32_reference,
    in_threads,
    scene,
    xfeat,
)

from gps_denied_inference.engines.cache import EngineCache
from gps_denied_inference.engines.gate import EngineGate
from gps_denied_inference.errors import (
    EngineRejectedError,
    GpsDeniedInferenceError,
    InputMismatchError,
    InvalidHandleError,
    InvalidParameterError,
    ModelNotFoundError,
    UnsupportedDeviceError,
)
from gps_denied_inference.runtimes import create_runtime
from gps_denied_inference.runtimes.contract import InferenceRuntime
from gps_denied_inference.thermal.state import ThermalLevel, ThermalState

CYCLES = 50


@pytest.fixture(scope="module", params=CASES, ids=str)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The runtime with its engine on disk."""
    case: Case = request.param
    reason = case.missing()
    if reason:
        pytest.skip(f"{case.name}: {reason}")
    cache = EngineCache(tmp_path_factory.mktemp("engines"))
    model = xfeat(case)
    runtime = create_runtime(case.runtime, cache=cache, **case.options())
    entry = runtime.compile_engine(model, case.config)
    return Bench(case, model, cache, runtime, entry, None)


@pytest.fixture(scope="module")
def bench(built: Bench) -> Iterator[Bench]:
    """The runtime with its engine loaded."""
    reason = built.case.why_no_run()
    if reason:
        pytest.skip(f"{built.case.name}: {reason}")
    built.handle = built.load()
    yield built
    built.runtime.release_engine(built.handle)
    built.handle = None


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Arrays]:
    """FP32 answers on the CPU: PyTorch, or ONNX Runtime where PyTorch or its weights are absent."""
    return fp32_reference(tmp_path_factory.mktemp("reference"))


# What needs the engine on disk only.


def test_keeps_the_protocol_and_its_name(built: Bench) -> None:
    assert isinstance(built.runtime, InferenceRuntime)
    assert built.runtime.current_runtime_label() == built.case.runtime


def test_the_engine_is_described_by_its_manifest(built: Bench) -> None:
    manifest = built.entry.manifest
    assert built.entry.artifact.is_file()
    assert (manifest.model, manifest.kind, manifest.descriptor_dim) == ("xfeat", "extractor", 64)
    assert manifest.precision == built.case.config.precision
    assert [spec.name for spec in manifest.inputs] == ["image"]
    assert [(spec.name, spec.shape, spec.dtype) for spec in manifest.outputs] == [
        ("keypoints", (K, 2), "float32"),
        ("scores", (K,), "float32"),
        ("descriptors", (K, 64), "float32"),
        ("count", (1,), "int32"),
    ]


def test_a_second_compile_finds_the_engine(built: Bench) -> None:
    before = built.entry.artifact.stat()
    again = built.runtime.compile_engine(built.model, built.case.config)
    assert again.artifact == built.entry.artifact
    assert again.artifact.stat().st_ino == before.st_ino


def test_progress_never_falls_and_ends_at_one(built: Bench, tmp_path: Path) -> None:
    told: list[tuple[float, str]] = []
    runtime = built.make(cache=EngineCache(tmp_path))
    runtime.compile_engine(built.model, built.case.config, lambda *step: told.append(step))
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert all(0 <= share <= 1 and text for share, text in told)


def test_load_only_builds_nothing(built: Bench, tmp_path: Path) -> None:
    runtime = built.make(cache=EngineCache(tmp_path), policy="load_only")
    with pytest.raises(EngineRejectedError) as caught:
        runtime.compile_engine(built.model, built.case.config)
    assert caught.value.reasons == ("missing_artifact",)


def test_an_unknown_policy_is_refused(built: Bench) -> None:
    with pytest.raises(InvalidParameterError, match="policy"):
        built.make(policy="whenever")


def test_a_damaged_engine_never_reaches_the_library(built: Bench, tmp_path: Path) -> None:
    runtime = built.make(cache=EngineCache(tmp_path))
    entry = runtime.compile_engine(built.model, built.case.config)
    content = bytearray(entry.artifact.read_bytes())
    content[len(content) // 2] ^= 1
    entry.artifact.write_bytes(content)
    with pytest.raises(EngineRejectedError) as caught:
        runtime.deserialize_engine(entry)
    assert caught.value.reasons == ("hash",)


def test_a_gate_that_requires_signatures_is_obeyed(built: Bench, tmp_path: Path) -> None:
    from gps_denied_inference.engines.signing import generate_keys

    key = tmp_path / "public.pem"
    generate_keys(tmp_path / "private.pem", key)
    runtime = built.make(
        gate=EngineGate(require_signature=True, public_key=tmp_path / "public.pem")
    )
    with pytest.raises(EngineRejectedError) as caught:
        runtime.deserialize_engine(built.entry)
    assert "signature" in caught.value.reasons


def test_another_device_kind_is_refused_where_there_is_none(built: Bench) -> None:
    with pytest.raises((InvalidParameterError, GpsDeniedInferenceError), match="device"):
        built.runtime.compile_engine(built.model, replace(built.case.config, device="tpu"))


@pytest.mark.parametrize(
    "changes",
    [{"width": 0}, {"max_keypoints": 3841}, {"channels": 2}, {"precision": "int8"}],
    ids=str,
)
def test_a_configuration_out_of_bounds_is_refused(built: Bench, changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameterError) as caught:
        built.runtime.compile_engine(built.model, replace(built.case.config, **changes))
    assert caught.value.name in changes


def test_a_model_without_files_is_refused(built: Bench, tmp_path: Path) -> None:
    if built.case.runtime == "fake":
        pytest.skip("fake: needs no model files")
    absent = tmp_path / "absent"
    model = replace(
        built.model, graph=absent, weights=absent, graph_sha256="0" * 64, weights_sha256="0" * 64
    )
    with pytest.raises(ModelNotFoundError):
        built.runtime.compile_engine(model, built.case.config)


def test_thermal_state_is_unknown_until_a_source_is_attached(built: Bench) -> None:
    assert built.runtime.thermal_state().level == ThermalLevel.UNKNOWN
    hot = replace(ThermalState.unknown("test"), is_telemetry_available=True)
    assert built.make(thermal_source=lambda: hot).thermal_state() is hot


def test_building_for_another_gpu_is_not_loading(built: Bench) -> None:
    if not built.case.why_no_run():
        pytest.skip(f"{built.case.name}: runs here")
    with pytest.raises(UnsupportedDeviceError, match="compute capability 8.9"):
        built.load()


# What needs it loaded.


def test_what_runs_is_what_was_asked_for(bench: Bench) -> None:
    assert bench.handle is not None
    readback, config = bench.handle.readback, bench.case.config
    assert readback.runtime == bench.case.runtime
    assert readback.precision == config.precision
    assert readback.device.startswith("cuda:0" if config.device == "cuda" else "cpu")
    assert readback.version
    assert readback.provider
    assert bench.handle.load_time > 0
    assert bench.handle.inputs == bench.entry.manifest.inputs
    assert bench.handle.outputs == bench.entry.manifest.outputs


def test_outputs_are_what_the_protocol_lays_down(bench: Bench) -> None:
    outputs = bench.infer(scene(1))
    assert bench.handle is not None
    assert list(outputs) == [spec.name for spec in bench.handle.outputs]
    for spec in bench.handle.outputs:
        assert (outputs[spec.name].shape, outputs[spec.name].dtype.name) == (spec.shape, spec.dtype)
    count = int(outputs["count"][0])
    assert 0 < count <= K
    keypoints, scores = outputs["keypoints"], outputs["scores"]
    assert np.all(keypoints[:count] >= -0.5)
    assert np.all(keypoints[:count] <= np.array([WIDTH - 0.5, HEIGHT - 0.5]))
    assert np.all(scores[:count] > 0)
    norms = np.linalg.norm(outputs["descriptors"][:count], axis=1)
    np.testing.assert_allclose(norms, 1, atol=2e-3)
    for name in ("keypoints", "scores", "descriptors"):
        assert not outputs[name][count:].any()


def test_a_blank_image_gives_finite_answers(bench: Bench) -> None:
    blank = np.zeros((HEIGHT, WIDTH, 1), np.uint8)
    outputs = bench.infer(blank)
    count = int(outputs["count"][0])
    assert all(np.isfinite(value).all() for value in outputs.values())
    assert not outputs["descriptors"][count:].any()


def test_the_same_image_gives_the_same_answer_whatever_came_between(bench: Bench) -> None:
    # In training mode, batch statistics would make answers depend on what came before.
    first = bench.infer(scene(1))
    for seed in (2, 3):
        bench.infer(scene(seed))
    again = bench.infer(scene(1))
    for name, value in first.items():
        np.testing.assert_allclose(again[name], value, rtol=0, atol=1e-6, err_msg=name)


def test_answers_are_the_callers_own(bench: Bench) -> None:
    first = bench.infer(scene(1))
    kept = {name: value.copy() for name, value in first.items()}
    bench.infer(scene(2))
    for name, value in kept.items():
        np.testing.assert_array_equal(first[name], value, err_msg=name)
        first[name][...] = 0


def test_agrees_with_the_fp32_reference(bench: Bench, reference: Callable[[int], Arrays]) -> None:
    if not bench.case.parity:
        pytest.skip(f"{bench.case.name}: computes another function")
    half = bench.case.config.precision == "fp16"
    for seed in (1, 2, 3):
        same, cosine = agreement(reference(seed), bench.infer(scene(seed)))
        assert same >= (0.97 if half else 0.995), f"{same:.4f} of the keypoints, image {seed}"
        assert cosine >= (0.995 if half else 0.9999), f"descriptor cosine {cosine:.5f}"


def test_images_that_are_not_contiguous_are_taken(bench: Bench) -> None:
    wide = np.zeros((HEIGHT, WIDTH * 2, 1), np.uint8)
    wide[:, ::2] = scene(1)
    view = wide[:, ::2]
    assert not view.flags.c_contiguous
    np.testing.assert_allclose(
        bench.infer(view)["keypoints"], bench.infer(scene(1))["keypoints"], atol=1e-6
    )


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"picture": scene(1)},
        {"image": scene(1), "mask": scene(1)},
        {"image": scene(1)[:-1]},
        {"image": scene(1)[:, :, 0]},
        {"image": scene(1).astype(np.float32)},
        {"image": scene(1).astype(np.int8)},
        {"image": scene(1).tolist()},
    ],
    ids=["none", "name", "extra", "shape", "rank", "float", "signed", "list"],
)
def test_wrong_inputs_are_refused_and_do_no_harm(bench: Bench, inputs: Arrays) -> None:
    assert bench.handle is not None
    with pytest.raises(InputMismatchError):
        bench.runtime.infer(bench.handle, inputs)
    assert int(bench.infer(scene(1))["count"][0]) > 0


def test_foreign_handles_are_refused(bench: Bench) -> None:
    assert bench.handle is not None
    other = bench.make()
    with pytest.raises(InvalidHandleError):
        other.infer(bench.handle, {"image": scene(1)})
    with pytest.raises(InvalidHandleError):
        other.release_engine(bench.handle)
    with pytest.raises(InvalidHandleError):
        bench.runtime.infer("handle", {"image": scene(1)})  # type: ignore[arg-type]
    assert int(bench.infer(scene(1))["count"][0]) > 0


def test_released_handles_are_refused_and_releasing_twice_is_fine(bench: Bench) -> None:
    handle = bench.load()
    bench.runtime.release_engine(handle)
    assert handle.released
    bench.runtime.release_engine(handle)
    with pytest.raises(InvalidHandleError):
        bench.runtime.infer(handle, {"image": scene(1)})


def test_two_engines_live_side_by_side_and_one_survives_the_other(bench: Bench) -> None:
    wanted = bench.infer(scene(1))["keypoints"]
    second = bench.load()
    got = bench.runtime.infer(second, {"image": scene(1)})["keypoints"]
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    bench.runtime.release_engine(second)
    np.testing.assert_allclose(bench.infer(scene(1))["keypoints"], wanted, atol=1e-6)


def test_fifty_cycles_of_load_and_release(bench: Bench) -> None:
    wanted = bench.infer(scene(1))["keypoints"]
    for cycle in range(CYCLES):
        handle = bench.load()
        if cycle % 10 == 9:
            got = bench.runtime.infer(handle, {"image": scene(1)})["keypoints"]
            np.testing.assert_allclose(got, wanted, atol=1e-6)
        bench.runtime.release_engine(handle)


def test_two_threads_may_infer_on_one_handle(bench: Bench) -> None:
    wanted = {seed: bench.infer(scene(seed)) for seed in (1, 2)}
    wrong: list[str] = []

    def work(seed: int) -> None:
        image = scene(seed)
        for _ in range(20):
            got = bench.infer(image)
            for name, value in wanted[seed].items():
                if not np.allclose(got[name], value, atol=1e-6):
                    wrong.append(f"image {seed}: {name}")

    in_threads([lambda: work(1), lambda: work(2)])
    assert not wrong


def test_releasing_while_others_infer_gives_answers_or_a_refusal(bench: Bench) -> None:
    handle = bench.load()
    wanted = bench.runtime.infer(handle, {"image": scene(1)})["keypoints"]
    running = threading.Event()
    ends: list[str] = []

    def work() -> None:
        image = scene(1)
        while True:
            try:
                got = bench.runtime.infer(handle, {"image": image})["keypoints"]
            except InvalidHandleError:
                ends.append("refused")
                return
            assert np.allclose(got, wanted, atol=1e-6)
            running.set()

    def release() -> None:
        assert running.wait(60)
        bench.runtime.release_engine(handle)

    in_threads([work, work, release])
    assert ends == ["refused", "refused"]


def test_a_latency_line_per_frame_only_where_asked_for(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="gps_denied_inference")
    bench.infer(scene(1))
    assert not [line for line in caplog.messages if " ms" in line]
    runtime = bench.make(per_frame_debug_log=True)
    handle = runtime.deserialize_engine(bench.entry)
    caplog.clear()
    runtime.infer(handle, {"image": scene(1)})
    runtime.release_engine(handle)
    assert len([line for line in caplog.messages if " ms" in line]) == 1

"""TensorRT: real engines built without a GPU, and everything that can go wrong.

Engines are built by TensorRT for RTX itself where it is installed. Running needs a GPU that it
supports; what runs here is the runtime over the double (see the conformance suite).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tensorrt_double as double

from gps_denied_inference.engines import reasons
from gps_denied_inference.engines.cache import EngineCache
from gps_denied_inference.engines.gate import EngineGate, RunningMachine
from gps_denied_inference.engines.manifest import EngineManifest, manifest_path
from gps_denied_inference.errors import (
    EngineRejectedError,
    RuntimeUnavailableError,
    UnsupportedDeviceError,
)
from gps_denied_inference.models import zoo
from gps_denied_inference.runtimes.contract import BuildConfig, EngineCacheEntry
from gps_denied_inference.runtimes.gpus import Gpu, GpuSurvey, survey
from gps_denied_inference.runtimes.tensorrt.probe import find_tensorrt
from gps_denied_inference.runtimes.tensorrt.runtime import TensorrtRuntime

NO_GPU = GpuSurvey(reason="there is no GPU in this test")
ADA = GpuSurvey((Gpu(0, "RTX 4090", "8.9", 1 << 35),), "13.0")
H100 = GpuSurvey((Gpu(0, "H100", "9.0", 1 << 36),), "13.0")

RTX_CONFIG = BuildConfig(precision="fp16", device="cuda", options={"compute_capability": "8.9"})

NO_DRIVER = not survey().gpus
needs_rtx = pytest.mark.skipif(
    find_tensorrt(library="tensorrt_rtx") is None, reason="tensorrt_rtx is not installed"
)


def rtx(folder: Path, gpus: GpuSurvey = NO_GPU, **options: Any) -> TensorrtRuntime:
    return TensorrtRuntime(cache=EngineCache(folder), library="tensorrt_rtx", gpus=gpus, **options)


# A real engine, built without a GPU.


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> EngineCacheEntry:
    if find_tensorrt(library="tensorrt_rtx") is None:
        pytest.skip("tensorrt_rtx is not installed")
    runtime = rtx(tmp_path_factory.mktemp("rtx"))
    return runtime.compile_engine(zoo.resolve("xfeat"), RTX_CONFIG)


MACHINE_CHANGES: dict[str, tuple[str, str]] = {
    reasons.RUNTIME: ("runtime_id", "onnxruntime"),
    reasons.VERSION: ("runtime_version", "tensorrt_rtx 0.1"),
    reasons.COMPUTE_CAPABILITY: ("compute_capability", "12.0"),
    reasons.DEVICE: ("device_name", "another"),
    reasons.PRECISION: ("precision", "fp32"),
}


def machine(entry: EngineCacheEntry) -> RunningMachine:
    m = entry.manifest
    return RunningMachine(
        m.runtime_id, m.runtime_version, m.compute_capability, m.device_name, m.precision
    )


def copied(entry: EngineCacheEntry, folder: Path) -> Path:
    target = folder / "engine.engine"
    target.write_bytes(entry.artifact.read_bytes())
    manifest_path(target).write_bytes(manifest_path(entry.artifact).read_bytes())
    return target


def test_a_real_engine_is_built_and_accepted_without_a_gpu(engine: EngineCacheEntry) -> None:
    assert engine.manifest.runtime_version.startswith("tensorrt_rtx 1.")
    assert engine.manifest.compute_capability == "8.9"
    assert engine.manifest.artifact_size == engine.artifact.stat().st_size > 1 << 20
    decision = EngineGate().check(engine.artifact, machine(engine), RTX_CONFIG)
    assert (decision.accepted, decision.reasons) == (True, ())


@pytest.mark.parametrize("reason", list(MACHINE_CHANGES))
def test_a_real_engine_is_refused_on_another_machine(engine: EngineCacheEntry, reason: str) -> None:
    field, value = MACHINE_CHANGES[reason]
    other = replace(machine(engine), **{field: value})
    decision = EngineGate().check(engine.artifact, other, RTX_CONFIG)
    assert (decision.accepted, decision.reasons) == (False, (reason,))


def _no_engine(path: Path) -> None:
    path.unlink()


def _no_manifest(path: Path) -> None:
    manifest_path(path).unlink()


def _unreadable(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _malformed(path: Path) -> None:
    manifest_path(path).write_text("{")


def _altered(path: Path) -> None:
    text = manifest_path(path).read_text()
    manifest_path(path).write_text(text.replace('"8.9"', '"9.0"', 1))


def _schema(path: Path) -> None:
    manifest = EngineManifest.from_json(manifest_path(path).read_bytes())
    manifest_path(path).write_bytes(replace(manifest, schema=99).to_json())


def _longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def _flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0x40
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], None]] = {
    reasons.MISSING_ARTIFACT: _no_engine,
    reasons.MISSING_MANIFEST: _no_manifest,
    reasons.UNREADABLE: _unreadable,
    reasons.MANIFEST_MALFORMED: _malformed,
    reasons.MANIFEST_ALTERED: _altered,
    reasons.SCHEMA: _schema,
    reasons.SIZE: _longer,
    reasons.HASH: _flipped,
}


@pytest.mark.parametrize("reason", list(DAMAGE))
def test_a_damaged_real_engine_is_refused(
    engine: EngineCacheEntry, reason: str, tmp_path: Path
) -> None:
    path = copied(engine, tmp_path)
    DAMAGE[reason](path)
    decision = EngineGate().check(path, machine(engine), RTX_CONFIG)
    assert not decision.accepted
    assert reason in decision.reasons


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        (reasons.SHAPES, {"width": 320}),
        (reasons.SHAPES, {"max_keypoints": 500}),
        (reasons.CONFIG, {"detection_threshold": 0.2}),
    ],
    ids=["width", "keypoints", "threshold"],
)
def test_a_real_engine_of_another_configuration_is_refused(
    engine: EngineCacheEntry, reason: str, changes: dict[str, Any]
) -> None:
    config = replace(RTX_CONFIG, **changes)
    assert reason in EngineGate().check(engine.artifact, machine(engine), config).reasons


def test_an_unsigned_real_engine_is_refused_where_signatures_are_required(
    engine: EngineCacheEntry, tmp_path: Path
) -> None:
    from gps_denied_inference.engines.signing import generate_keys, load_private_key, sign

    generate_keys(tmp_path / "private.pem", tmp_path / "public.pem")
    gate = EngineGate(require_signature=True, public_key=tmp_path / "public.pem")
    path = copied(engine, tmp_path)
    assert gate.check(path, machine(engine)).reasons == (reasons.SIGNATURE,)
    sign(path, load_private_key(tmp_path / "private.pem"))
    assert gate.check(path, machine(engine)).accepted


OTHER_INGREDIENTS: dict[str, tuple[str, str]] = {
    reasons.MODEL: ("name", "aliked-t16"),
    reasons.GRAPH: ("graph_sha256", "b" * 64),
    reasons.WEIGHTS: ("weights_sha256", "b" * 64),
}


@pytest.mark.parametrize("reason", list(OTHER_INGREDIENTS))
def test_a_real_engine_of_other_ingredients(engine: EngineCacheEntry, reason: str) -> None:
    field, value = OTHER_INGREDIENTS[reason]
    asked = dataclasses.replace(engine.model, **{field: value})
    decision = EngineGate().check(engine.artifact, machine(engine), engine.config, asked)
    assert decision.reasons == (reason,)


def test_a_real_engine_under_another_key(engine: EngineCacheEntry) -> None:
    asked = (machine(engine), engine.config, engine.model)
    assert EngineGate().check(engine.artifact, *asked, engine.manifest.cache_key).accepted
    refused = EngineGate().check(engine.artifact, *asked, "b" * 64)
    assert refused.reasons == (reasons.CACHE_KEY,)


def test_every_reason_is_covered() -> None:
    covered = {*MACHINE_CHANGES, *DAMAGE, *OTHER_INGREDIENTS}
    covered |= {reasons.SHAPES, reasons.CONFIG, reasons.CACHE_KEY, reasons.SIGNATURE}
    assert covered == set(reasons.ALL)


def test_a_real_engine_does_not_load_without_a_gpu(engine: EngineCacheEntry) -> None:
    runtime = rtx(engine.artifact.parent.parent)
    with pytest.raises(UnsupportedDeviceError, match="cannot be loaded here: there is no GPU"):
        runtime.deserialize_engine(engine)


def test_nothing_from_the_library_is_a_typed_error_with_its_words(
    engine: EngineCacheEntry,
) -> None:
    if not NO_DRIVER:
        pytest.skip("there is a GPU: the library may well load the engine")
    runtime = rtx(engine.artifact.parent.parent, ADA, cuda=double.DoubleCuda)
    with pytest.raises(UnsupportedDeviceError, match="gave no engine") as caught:
        runtime.deserialize_engine(engine)
    assert "Error Code" in str(caught.value.__cause__)


def test_an_engine_for_another_gpu_never_reaches_the_library(engine: EngineCacheEntry) -> None:
    runtime = rtx(engine.artifact.parent.parent, H100, cuda=double.DoubleCuda)
    with pytest.raises(EngineRejectedError) as caught:
        runtime.deserialize_engine(engine)
    assert reasons.COMPUTE_CAPABILITY in caught.value.reasons


@needs_rtx
def test_rtx_builds_nothing_for_a_gpu_that_it_does_not_run_on(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedDeviceError, match=r"compute capability 9\.0"):
        rtx(tmp_path, H100).compile_engine(zoo.resolve("xfeat"), replace(RTX_CONFIG, options={}))


@needs_rtx
def test_without_a_gpu_the_one_to_build_for_must_be_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeUnavailableError, match="--compute-capability"):
        rtx(tmp_path).compile_engine(zoo.resolve("xfeat"), replace(RTX_CONFIG, options={}))

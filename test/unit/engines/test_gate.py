"""The gate: what it accepts, and every reason for which it refuses."""

from __future__ import annotations

import dataclasses
import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from gps_denied_inference.engines import reasons
from gps_denied_inference.engines.cache import EngineCache
from gps_denied_inference.engines.gate import EngineGate, RunningMachine
from gps_denied_inference.engines.manifest import EngineManifest, manifest_path
from gps_denied_inference.errors import EngineRejectedError
from gps_denied_inference.runtimes.contract import (
    BuildConfig,
    EngineCacheEntry,
    Model,
    TensorSpec,
)
from gps_denied_inference.runtimes.fake import FakeRuntime

MODEL = Model("xfeat", "xfeat", "extractor", 64, graph_sha256="a" * 64)
CONFIG = BuildConfig(height=64, width=96, max_keypoints=50)
MACHINE = RunningMachine("fake", "1", "", "cpu", "fp32")


@pytest.fixture
def entry(tmp_path: Path) -> EngineCacheEntry:
    return FakeRuntime(cache=EngineCache(tmp_path)).compile_engine(MODEL, CONFIG)


def rewrite(entry: EngineCacheEntry, **changes: object) -> None:
    """Replace fields of the manifest and seal it anew, as somebody else's builder would."""
    manifest = dataclasses.replace(entry.manifest, **changes)  # type: ignore[arg-type]
    manifest_path(entry.artifact).write_bytes(manifest.to_json())


def test_accepts_what_was_built_and_hands_out_the_hashed_bytes(entry: EngineCacheEntry) -> None:
    decision = EngineGate().check(entry.artifact, MACHINE, CONFIG)
    assert decision.accepted
    assert decision.reasons == ()
    verified = EngineGate().require(entry.artifact, MACHINE, CONFIG)
    assert verified.data == entry.artifact.read_bytes()
    assert verified.manifest == entry.manifest == decision.manifest


OTHER_INGREDIENTS: list[tuple[str, dict[str, object]]] = [
    (reasons.MODEL, {"model": "aliked-t16"}),
    (reasons.MODEL, {"architecture": "aliked"}),
    (reasons.GRAPH, {"graph_sha256": "b" * 64}),
    (reasons.WEIGHTS, {"weights_sha256": "b" * 64}),
    (reasons.CACHE_KEY, {"cache_key": "b" * 64}),
    (reasons.CACHE_KEY, {"cache_key": "b" * 64, "package_version": "0.0.1"}),
]


@pytest.mark.parametrize(("reason", "changes"), OTHER_INGREDIENTS)
def test_an_engine_of_other_ingredients_is_refused(
    entry: EngineCacheEntry, reason: str, changes: dict[str, object]
) -> None:
    rewrite(entry, **changes)
    asked = (CONFIG, MODEL, entry.manifest.cache_key)
    assert EngineGate().check(entry.artifact, MACHINE, *asked).reasons == (reason,)
    with pytest.raises(EngineRejectedError) as raised:
        FakeRuntime().deserialize_engine(entry)
    assert raised.value.reasons == (reason,)


def test_what_is_loaded_carries_the_manifest_that_was_checked(entry: EngineCacheEntry) -> None:
    """Another build of the same engine took its place after it was found."""
    rewrite(entry, created="2000-01-01T00:00:00Z")
    handle = FakeRuntime().deserialize_engine(entry)
    assert handle.entry.manifest.created == "2000-01-01T00:00:00Z"


MANIFEST_CHANGES: list[tuple[str, dict[str, object]]] = [
    (reasons.SIZE, {"artifact_size": 7}),
    (reasons.HASH, {"artifact_sha256": "0" * 64}),
    (reasons.RUNTIME, {"runtime_id": "tensorrt"}),
    (reasons.VERSION, {"runtime_version": "1.0.1"}),
    (reasons.COMPUTE_CAPABILITY, {"compute_capability": "8.7"}),
    (reasons.DEVICE, {"device_name": "Orin"}),
    (reasons.PRECISION, {"precision": "fp16"}),
    (reasons.SHAPES, {"inputs": (TensorSpec("image", (64, 96, 3), "uint8"),)}),
    (reasons.SHAPES, {"outputs": ()}),
    (reasons.SHAPES, {"descriptor_dim": 128}),
    (reasons.SCHEMA, {"schema": 2}),
]


@pytest.mark.parametrize(("reason", "changes"), MANIFEST_CHANGES)
def test_a_foreign_manifest_is_refused_with_its_reason(
    entry: EngineCacheEntry, reason: str, changes: dict[str, object]
) -> None:
    rewrite(entry, **changes)
    assert EngineGate().check(entry.artifact, MACHINE, CONFIG).reasons == (reason,)
    with pytest.raises(EngineRejectedError) as raised:
        EngineGate().require(entry.artifact, MACHINE, CONFIG)
    assert raised.value.reasons == (reason,)


CONFIG_CHANGES: list[tuple[str, dict[str, object]]] = [
    (reasons.SHAPES, {"height": 96}),
    (reasons.SHAPES, {"channels": 3}),
    (reasons.SHAPES, {"max_keypoints": 51}),
    (reasons.PRECISION, {"precision": "fp16"}),
    (reasons.DEVICE, {"device": "cuda:0"}),
    (reasons.CONFIG, {"detection_threshold": 0.06}),
    (reasons.CONFIG, {"options": {"ratio": "0.9"}}),
]


@pytest.mark.parametrize(("reason", "changes"), CONFIG_CHANGES)
def test_an_engine_for_another_configuration_is_refused(
    entry: EngineCacheEntry, reason: str, changes: dict[str, object]
) -> None:
    asked = dataclasses.replace(CONFIG, **changes)  # type: ignore[arg-type]
    assert EngineGate().check(entry.artifact, MACHINE, asked).reasons == (reason,)


def test_settings_of_the_running_process_do_not_matter(entry: EngineCacheEntry) -> None:
    asked = dataclasses.replace(CONFIG, threads=3, warmup_iterations=9, cuda_graph=False)
    assert EngineGate().check(entry.artifact, MACHINE, asked).accepted


def damage_artifact(entry: EngineCacheEntry) -> None:
    entry.artifact.unlink()


def damage_manifest(entry: EngineCacheEntry) -> None:
    manifest_path(entry.artifact).unlink()


def damage_text(entry: EngineCacheEntry) -> None:
    manifest_path(entry.artifact).write_bytes(b"{")


def damage_deep(entry: EngineCacheEntry) -> None:
    manifest_path(entry.artifact).write_bytes(b"[" * 100_000)


def damage_spacing(entry: EngineCacheEntry) -> None:
    path = manifest_path(entry.artifact)
    path.write_bytes(path.read_bytes() + b" ")


def damage_number(entry: EngineCacheEntry) -> None:
    path = manifest_path(entry.artifact)
    path.write_bytes(path.read_bytes().replace(b'"height": 64', b'"height": 65'))


def damage_type(entry: EngineCacheEntry) -> None:
    rewrite(entry, descriptor_dim="64")


def damage_to_folder(entry: EngineCacheEntry) -> None:
    entry.artifact.unlink()
    entry.artifact.mkdir()


@pytest.mark.parametrize(
    ("reason", "damage"),
    [
        (reasons.MISSING_ARTIFACT, damage_artifact),
        (reasons.MISSING_MANIFEST, damage_manifest),
        (reasons.MANIFEST_MALFORMED, damage_text),
        (reasons.MANIFEST_MALFORMED, damage_deep),
        (reasons.MANIFEST_MALFORMED, damage_type),
        (reasons.MANIFEST_ALTERED, damage_spacing),
        (reasons.MANIFEST_ALTERED, damage_number),
        (reasons.UNREADABLE, damage_to_folder),
    ],
)
def test_damage_is_refused_with_its_reason(
    entry: EngineCacheEntry, reason: str, damage: Callable[[EngineCacheEntry], None]
) -> None:
    damage(entry)
    decision = EngineGate().check(entry.artifact, MACHINE, CONFIG)
    assert decision.reasons == (reason,)
    assert str(entry.artifact) in decision.message


def test_every_finding_is_named_at_once(entry: EngineCacheEntry) -> None:
    machine = RunningMachine("tensorrt", "10.3", "8.7", "Orin", "fp16")
    assert EngineGate().check(entry.artifact, machine).reasons == (
        reasons.RUNTIME,
        reasons.VERSION,
        reasons.COMPUTE_CAPABILITY,
        reasons.DEVICE,
        reasons.PRECISION,
    )


@pytest.mark.parametrize("which", ["artifact", "manifest"])
def test_any_flipped_byte_is_refused(entry: EngineCacheEntry, which: str) -> None:
    path = entry.artifact if which == "artifact" else manifest_path(entry.artifact)
    intact = path.read_bytes()
    assert len(intact) > 100
    chance = random.Random(20240917)
    gate = EngineGate()
    for _ in range(1000):
        place = chance.randrange(len(intact))
        flipped = bytearray(intact)
        flipped[place] ^= chance.randrange(1, 256)
        path.write_bytes(flipped)
        decision = gate.check(entry.artifact, MACHINE)
        assert not decision.accepted, f"byte {place} of the {which} was {flipped[place]:#x}"
    path.write_bytes(intact)
    assert gate.check(entry.artifact, MACHINE, CONFIG).accepted


def test_the_bytes_handed_out_are_those_that_were_hashed(entry: EngineCacheEntry) -> None:
    expected = entry.artifact.read_bytes()
    verified = EngineGate().require(entry.artifact, MACHINE, CONFIG)
    entry.artifact.write_bytes(b"\0" * len(expected))
    assert verified.data == expected


def test_manifest_survives_its_own_text(entry: EngineCacheEntry) -> None:
    text = entry.manifest.to_json()
    assert EngineManifest.from_json(text) == entry.manifest
    assert EngineManifest.from_json(text).to_json() == text
    assert json.loads(text)["artifact_size"] == os.path.getsize(entry.artifact)


def test_reason_words_are_unique() -> None:
    assert len(set(reasons.ALL)) == len(reasons.ALL)

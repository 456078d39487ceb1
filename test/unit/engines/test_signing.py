"""Signed engines: only those of the trusted key pass a gate that requires signatures."""

from __future__ import annotations

import dataclasses
import stat
from pathlib import Path

import pytest

from gps_denied_inference.engines import reasons, signing
from gps_denied_inference.engines.cache import EngineCache
from gps_denied_inference.engines.gate import EngineGate, RunningMachine
from gps_denied_inference.engines.manifest import manifest_path
from gps_denied_inference.errors import (
    EngineRejectedError,
    InvalidParameterError,
    StorageError,
)
from gps_denied_inference.runtimes.contract import BuildConfig, EngineCacheEntry, Model
from gps_denied_inference.runtimes.fake import FakeRuntime

MODEL = Model("xfeat", "xfeat", "extractor", 64)
CONFIG = BuildConfig(height=32, width=32, max_keypoints=9)
MACHINE = RunningMachine("fake", "1", "", "cpu", "fp32")


@dataclasses.dataclass
class Keys:
    private: Path
    public: Path

    @property
    def gate(self) -> EngineGate:
        return EngineGate(require_signature=True, public_key=self.public)


def keys(folder: Path, name: str) -> Keys:
    pair = Keys(folder / f"{name}.key", folder / f"{name}.pub")
    signing.generate_keys(pair.private, pair.public)
    return pair


@pytest.fixture
def entry(tmp_path: Path) -> EngineCacheEntry:
    return FakeRuntime(cache=EngineCache(tmp_path / "cache")).compile_engine(MODEL, CONFIG)


def sign(entry: EngineCacheEntry, pair: Keys) -> None:
    signing.sign(entry.artifact, signing.load_private_key(pair.private))


def test_signed_engine_passes_and_runs(entry: EngineCacheEntry, tmp_path: Path) -> None:
    pair = keys(tmp_path, "ours")
    assert pair.gate.check(entry.artifact, MACHINE, CONFIG).reasons == (reasons.SIGNATURE,)
    sign(entry, pair)
    assert pair.gate.check(entry.artifact, MACHINE, CONFIG).accepted
    runtime = FakeRuntime(cache=EngineCache(tmp_path / "cache"), gate=pair.gate)
    handle = runtime.deserialize_engine(runtime.compile_engine(MODEL, CONFIG))
    assert handle.entry.manifest.signer


def test_foreign_key_is_refused_even_where_no_signature_is_required(
    entry: EngineCacheEntry, tmp_path: Path
) -> None:
    ours, theirs = keys(tmp_path, "ours"), keys(tmp_path, "theirs")
    sign(entry, theirs)
    for gate in (ours.gate, EngineGate(public_key=ours.public)):
        assert gate.check(entry.artifact, MACHINE, CONFIG).reasons == (reasons.SIGNATURE,)
    assert EngineGate().check(entry.artifact, MACHINE, CONFIG).accepted


@pytest.mark.parametrize(
    "changes",
    [
        {"artifact_sha256": "0" * 64},
        {"runtime_version": "2"},
        {"created": "1970-01-01T00:00:00Z"},
        {"signature": "AAAA"},
        {"signature": "not base64"},
        {"signature": ""},
        {"signer": ""},
    ],
)
def test_resealed_manifest_loses_its_signature(
    entry: EngineCacheEntry, tmp_path: Path, changes: dict[str, str]
) -> None:
    pair = keys(tmp_path, "ours")
    sign(entry, pair)
    signed = pair.gate.require(entry.artifact, MACHINE, CONFIG).manifest
    forged = dataclasses.replace(signed, **changes)  # type: ignore[arg-type]
    manifest_path(entry.artifact).write_bytes(forged.to_json())
    assert reasons.SIGNATURE in pair.gate.check(entry.artifact, MACHINE, CONFIG).reasons


def test_a_gate_that_requires_signatures_forbids_building(tmp_path: Path) -> None:
    pair = keys(tmp_path, "ours")
    runtime = FakeRuntime(cache=EngineCache(tmp_path / "cache"), gate=pair.gate)
    with pytest.raises(EngineRejectedError, match=r"would not be signed.*gdi sign") as raised:
        runtime.compile_engine(MODEL, CONFIG)
    assert raised.value.reasons == (reasons.MISSING_ARTIFACT,)
    assert not (tmp_path / "cache").exists()


def test_damaged_engine_is_not_signed(entry: EngineCacheEntry, tmp_path: Path) -> None:
    pair = keys(tmp_path, "ours")
    before = manifest_path(entry.artifact).read_bytes()
    entry.artifact.write_bytes(entry.artifact.read_bytes() + b"\n")
    with pytest.raises(EngineRejectedError) as raised:
        sign(entry, pair)
    assert raised.value.reasons == (reasons.HASH,)
    assert manifest_path(entry.artifact).read_bytes() == before


def test_private_key_is_for_its_owner_and_never_overwritten(tmp_path: Path) -> None:
    pair = keys(tmp_path, "ours")
    assert stat.S_IMODE(pair.private.stat().st_mode) == 0o600
    before = pair.private.read_bytes()
    with pytest.raises(StorageError, match=r"exists already"):
        keys(tmp_path, "ours")
    assert pair.private.read_bytes() == before


def test_no_private_key_stays_behind_where_the_public_one_cannot_be_written(
    tmp_path: Path,
) -> None:
    with pytest.raises(StorageError, match=r"absent"):
        signing.generate_keys(tmp_path / "a.key", tmp_path / "absent" / "a.pub")
    assert list(tmp_path.iterdir()) == []


def test_unusable_keys_are_named(tmp_path: Path) -> None:
    pair = keys(tmp_path, "ours")
    with pytest.raises(InvalidParameterError, match=r"public_key.*PEM file"):
        EngineGate(require_signature=True)
    with pytest.raises(InvalidParameterError, match=r"absent\.pub"):
        EngineGate(public_key=tmp_path / "absent.pub")
    with pytest.raises(InvalidParameterError, match=r"ours\.key"):
        EngineGate(public_key=pair.private)
    with pytest.raises(InvalidParameterError, match=r"ours\.pub"):
        signing.load_private_key(pair.public)

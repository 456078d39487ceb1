"""Accept or refuse an engine before any byte of it is deserialised.

Deserialising an engine of a native runtime (TensorRT above all) equals running native code from
that file. The gate therefore decides from the manifest and the running machine alone, hashes the
file, and hands out the very bytes it hashed: what was checked is what is loaded. Where engines
come from elsewhere, require signatures.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from gps_denied_inference.engines import reasons
from gps_denied_inference.engines.entry import EngineCacheEntry
from gps_denied_inference.engines.manifest import (
    EngineManifest,
    engine_config,
)
from gps_denied_inference.errors import EngineRejectedError, InvalidParameterError, StorageError
from gps_denied_inference.runtimes.specs import BuildConfig, Model, Precision, expected_tensors
from gps_denied_inference.storage.files import MAX_ENGINE_BYTES, open_regular
from gps_denied_inference.versions import installed_version


@dataclass(frozen=True)
class RunningMachine:
    """The runtime and device that would run the engine.

    Attributes:
        runtime_id: registry name, e.g. ``"onnxruntime"``.
        runtime_version: full version of its library.
        compute_capability: e.g. ``"9.0"``; empty for a CPU.
        device_name: e.g. ``"NVIDIA H100 80GB HBM3"``; ``"cpu"`` for a CPU.
        precision: ``"fp32"`` or ``"fp16"``, as asked for.
    """

    runtime_id: str
    runtime_version: str
    compute_capability: str
    device_name: str
    precision: Precision


@dataclass(frozen=True)
class GateDecision:
    """What the gate decided.

    Attributes:
        accepted: True where there is no reason against it.
        reasons: words of ``engines.reasons``, in the order found.
        message: one line for people; also says what to do.
        manifest: the manifest, where it could be read and is intact.
    """

    accepted: bool
    reasons: tuple[str, ...]
    message: str
    manifest: EngineManifest | None = None


@dataclass(frozen=True)
class VerifiedEngine:
    """An accepted engine.

    Attributes:
        artifact: where it was read from.
        manifest: its manifest.
        data: its bytes, as hashed. Load these, not the file.
    """

    artifact: Path
    manifest: EngineManifest
    data: bytes


class EngineGate:
    """Checks engines against their manifests and the running machine.

    Args:
        require_signature: refuse an engine that the trusted key did not sign.
        public_key: PEM file with the trusted Ed25519 key. With a key but without
            ``require_signature``, unsigned engines pass and wrongly signed ones do not.
        parameter: what the user names the key with.

    Raises:
        InvalidParameterError: a signature is required and no key is given, or it is unusable.
        RuntimeUnavailableError: a key is given and ``cryptography`` is not installed.
    """

    def __init__(
        self,
        require_signature: bool = False,
        public_key: Path | None = None,
        parameter: str = "engine_public_key",
    ) -> None:
        if require_signature and public_key is None:
            raise InvalidParameterError(
                parameter, None, "a PEM file where signed engines are required"
            )
        self.require_signature = require_signature
        self._key = None
        if public_key is not None:
            from gps_denied_inference.engines.signing import load_public_key

            self._key = load_public_key(public_key, parameter)

    def check(
        self,
        artifact: Path,
        machine: RunningMachine,
        config: BuildConfig | None = None,
        model: Model | None = None,
        cache_key: str = "",
    ) -> GateDecision:
        """Decide; never raises for a bad engine.

        Args:
            artifact: the engine file; its manifest lies beside it.
            machine: what would run it.
            config: what it must be fixed to, or None to accept any.
            model: what it must be made from, or None to accept any.
            cache_key: hex, of all that must have gone in; empty to accept any.
        """
        return self._examine(artifact, machine, config, model, cache_key)[0]

    def require(
        self,
        artifact: Path,
        machine: RunningMachine,
        config: BuildConfig | None = None,
        model: Model | None = None,
        cache_key: str = "",
    ) -> VerifiedEngine:
        """Decide as :meth:`check` does, and hand out the verified bytes.

        Raises:
            EngineRejectedError: with machine-readable reasons.
        """
        decision, data = self._examine(artifact, machine, config, model, cache_key)
        if not decision.accepted or decision.manifest is None or data is None:
            raise EngineRejectedError(decision.message, decision.reasons)
        return VerifiedEngine(artifact, decision.manifest, data)

    def admit(
        self, entry: EngineCacheEntry, machine: RunningMachine
    ) -> tuple[EngineCacheEntry, VerifiedEngine]:
        """Decide about the engine of an entry, which may have been replaced since it was found.

        Returns:
            the entry with the manifest of what is loaded, and the verified bytes.

        Raises:
            EngineRejectedError: with machine-readable reasons.
        """
        verified = self.require(
            entry.artifact, machine, entry.config, entry.model, entry.manifest.cache_key
        )
        return dataclasses.replace(entry, manifest=verified.manifest), verified

    def _examine(
        self,
        artifact: Path,
        machine: RunningMachine,
        config: BuildConfig | None,
        model: Model | None,
        cache_key: str,
    ) -> tuple[GateDecision, bytes | None]:
        found: list[tuple[str, str]] = []
        manifest: EngineManifest | None = None
        data: bytes | None = None
        try:
            # The manifest is read after the engine is opened, so that an entry that is replaced
            # in between shows as a wrong hash and never as a mixture.
            with open_regular(artifact, MAX_ENGINE_BYTES) as stream:
                manifest = EngineManifest.read(artifact)
                if model is not None:
                    found += _model_findings(manifest, model)
                found += _machine_findings(manifest, machine)
                if config is not None:
                    found += _config_findings(manifest, config)
                found += _tensor_findings(manifest, config)
                if not found and cache_key and manifest.cache_key != cache_key:
                    found.append((reasons.CACHE_KEY, _other_key(manifest, cache_key)))
                found += self._signature_findings(manifest)
                data, findings = _read_artifact(stream.fileno(), manifest)
                found += findings
        except StorageError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                found.append((reasons.MISSING_ARTIFACT, "there is no engine file"))
            else:
                found.append((reasons.UNREADABLE, str(error)))
        except OSError as error:
            found.append((reasons.UNREADABLE, f"cannot be read: {error.strerror}"))
        except EngineRejectedError as error:
            found += [(reason, str(error).rpartition(" [")[0]) for reason in error.reasons]
        codes = tuple(dict.fromkeys(reason for reason, _ in found))
        if codes:
            detail = "; ".join(dict.fromkeys(text for _, text in found))
            return GateDecision(
                False, codes, f"engine {artifact} refused: {detail}", manifest
            ), None
        return GateDecision(True, (), f"engine {artifact} accepted", manifest), data

    def _signature_findings(self, manifest: EngineManifest) -> list[tuple[str, str]]:
        if not manifest.signature and not manifest.signer:
            if self.require_signature:
                return [(reasons.SIGNATURE, "it is not signed and a signature is required")]
            return []
        if self._key is None:
            return []
        from gps_denied_inference.engines.signing import verify

        if verify(manifest, self._key):
            return []
        return [(reasons.SIGNATURE, "its signature is not of the trusted key")]


def _read_artifact(
    descriptor: int, manifest: EngineManifest
) -> tuple[bytes, list[tuple[str, str]]]:
    size = os.fstat(descriptor).st_size
    if size != manifest.artifact_size:
        text = f"the file has {size} bytes, its manifest says {manifest.artifact_size}"
        return b"", [(reasons.SIZE, text)]
    with os.fdopen(os.dup(descriptor), "rb") as stream:
        data = stream.read(size + 1)
    digest = hashlib.sha256(data).hexdigest()
    if digest != manifest.artifact_sha256:
        return b"", [(reasons.HASH, "the file's SHA-256 is not its manifest's")]
    return data, []


def _model_findings(manifest: EngineManifest, model: Model) -> list[tuple[str, str]]:
    pairs = (
        (reasons.MODEL, "model", manifest.model, model.name),
        (reasons.MODEL, "architecture", manifest.architecture, model.architecture),
        (reasons.MODEL, "kind", manifest.kind, model.kind),
        (reasons.GRAPH, "graph SHA-256", manifest.graph_sha256, model.graph_sha256),
        (
            reasons.WEIGHTS,
            "weights SHA-256",
            manifest.weights_sha256,
            model.weights_sha256,
        ),
    )
    return [
        (reason, f"made from {what} '{built[:16]}', asked for is '{asked[:16]}'")
        for reason, what, built, asked in pairs
        if built != asked
    ]


def _other_key(manifest: EngineManifest, asked: str) -> str:
    version = installed_version("gps_denied_inference")
    if manifest.package_version != version:
        return f"made by version {manifest.package_version} of this package, this is {version}"
    return f"made with other ingredients: cache key {manifest.cache_key[:16]}, not {asked[:16]}"


def _machine_findings(manifest: EngineManifest, machine: RunningMachine) -> list[tuple[str, str]]:
    pairs = (
        (reasons.RUNTIME, "runtime", manifest.runtime_id, machine.runtime_id),
        (reasons.VERSION, "version", manifest.runtime_version, machine.runtime_version),
        (
            reasons.COMPUTE_CAPABILITY,
            "compute capability",
            manifest.compute_capability,
            machine.compute_capability,
        ),
        (reasons.DEVICE, "device", manifest.device_name, machine.device_name),
        (reasons.PRECISION, "precision", manifest.precision, machine.precision),
    )
    return [
        (reason, f"built for {what} '{built}', this is '{runs}'")
        for reason, what, built, runs in pairs
        if built != runs
    ]


def _config_findings(manifest: EngineManifest, config: BuildConfig) -> list[tuple[str, str]]:
    groups = {
        "height": reasons.SHAPES,
        "width": reasons.SHAPES,
        "channels": reasons.SHAPES,
        "max_keypoints": reasons.SHAPES,
        "batch": reasons.SHAPES,
        "precision": reasons.PRECISION,
        "device": reasons.DEVICE,
    }
    findings = []
    for name, asked in engine_config(config).items():
        built = manifest.config.get(name)
        if built != asked:
            text = f"built with {name} {built!r}, asked for {asked!r}"
            findings.append((groups.get(name, reasons.CONFIG), text))
    return findings


_SIZES = ("height", "width", "channels", "max_keypoints", "batch")


def _tensor_findings(manifest: EngineManifest, config: BuildConfig | None) -> list[tuple[str, str]]:
    fixed = engine_config(config) if config is not None else manifest.config
    sizes = [fixed.get(name) for name in _SIZES]
    if not all(type(size) is int for size in sizes):
        return [(reasons.SHAPES, "its manifest does not say what sizes it is fixed to")]
    expected = expected_tensors(manifest.kind, manifest.descriptor_dim, *sizes)  # type: ignore[arg-type]
    if expected is None:
        return []
    findings = []
    for side, wanted, built in zip(
        ("inputs", "outputs"), expected, (manifest.inputs, manifest.outputs), strict=True
    ):
        if wanted != built:
            findings.append((reasons.SHAPES, f"its {side} are not those of a {manifest.kind}"))
    return findings

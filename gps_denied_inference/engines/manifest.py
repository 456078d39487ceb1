"""What an engine on disk is and where it may run, written beside it as canonical JSON.

The text has one permitted byte sequence for its content (sorted keys, two-space indent, one
trailing newline) and carries its own digest in ``manifest_sha256``, so that a changed byte
anywhere in it is seen. That digest guards against damage, not against an attacker, who could
recompute it: against those there is the signature (see ``engines.signing``).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from gps_denied_inference.engines import reasons
from gps_denied_inference.errors import EngineRejectedError, StorageError, TooLargeError
from gps_denied_inference.runtimes.specs import BuildConfig, ModelKind, Precision, TensorSpec
from gps_denied_inference.storage.files import read_regular

SCHEMA = 1
TARGET_OPTION = "compute_capability"
"""Build option that names the GPU to build for, where a runtime can build for another machine."""
MAX_MANIFEST_BYTES = 1 << 20
_HEX64 = re.compile(r"[0-9a-f]{64}\Z")
_DIGEST = "manifest_sha256"


def manifest_path(artifact: Path) -> Path:
    """Return where the manifest of ``artifact`` lies."""
    return artifact.with_name(artifact.name + ".manifest.json")


def engine_config(config: BuildConfig) -> dict[str, Any]:
    """Return the part of a build configuration that an engine is fixed to.

    Threads, warm-up passes, CUDA graph capture and the device's index are settings of the running
    process: they change no byte of the engine, so changing them builds nothing anew. What GPU an
    engine is built for stands in the manifest's own fields, so that one built elsewhere is found
    where it flies.
    """
    options = {str(name): str(value) for name, value in config.options.items()}
    options.pop(TARGET_OPTION, None)
    return {
        "height": config.height,
        "width": config.width,
        "channels": config.channels,
        "max_keypoints": config.max_keypoints,
        "detection_threshold": float(config.detection_threshold),
        "precision": config.precision,
        "device": config.device.partition(":")[0],
        "batch": config.batch,
        "options": options,
    }


@dataclass(frozen=True)
class EngineManifest:
    """Description of one engine.

    Attributes:
        model, architecture, kind, descriptor_dim: as in ``runtimes.specs.Model``.
        graph_sha256, weights_sha256: hex, what it was made from; empty = not used.
        artifact_size: bytes.
        artifact_sha256: hex, of the engine file.
        runtime_id: registry name of the runtime that built it.
        runtime_version: full version of the runtime's library.
        compute_capability: e.g. ``"8.7"``; empty for a CPU.
        device_name: e.g. ``"Orin"``; ``"cpu"`` for a CPU.
        precision: ``"fp32"`` or ``"fp16"``.
        config: see :func:`engine_config`.
        inputs, outputs: tensor specs, in the engine's order.
        builder_flags: what else the builder was told.
        cache_key: hex, hash over everything that went in.
        created: UTC, ISO 8601.
        package_version: of this package.
        signer: hex, SHA-256 of the raw Ed25519 public key; empty = not signed.
        signature: base64, Ed25519 over :meth:`signed_bytes`; empty = not signed.
        schema: version of this layout.
    """

    model: str
    architecture: str
    kind: ModelKind
    descriptor_dim: int
    graph_sha256: str
    weights_sha256: str
    artifact_size: int
    artifact_sha256: str
    runtime_id: str
    runtime_version: str
    compute_capability: str
    device_name: str
    precision: Precision
    config: Mapping[str, Any]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    builder_flags: Mapping[str, str] = field(default_factory=dict)
    cache_key: str = ""
    created: str = ""
    package_version: str = ""
    signer: str = ""
    signature: str = ""
    schema: int = SCHEMA

    @property
    def model_sha256(self) -> str:
        """Hex, of the weights, or of the graph where there are none: descriptors go by it."""
        return self.weights_sha256 or self.graph_sha256

    def build_config(self, device: str | None = None) -> BuildConfig:
        """Return the configuration that the engine was built with.

        Args:
            device: with an index, where it is to run; None = the kind of device it is for.

        Raises:
            EngineRejectedError: the manifest does not hold it.
        """
        fixed = dict(self.config)
        if device is not None:
            fixed["device"] = device
        try:
            return BuildConfig(**fixed)
        except TypeError as error:
            raise EngineRejectedError(
                f"the manifest's build configuration is incomplete ({error}): compile the engine "
                "again",
                [reasons.MANIFEST_MALFORMED],
            ) from error

    @classmethod
    def read(cls, artifact: Path) -> EngineManifest:
        """Return the manifest that lies beside an engine.

        Raises:
            EngineRejectedError: there is none, or it cannot be read or is not intact.
        """
        path = manifest_path(artifact)
        try:
            return cls.from_json(read_regular(path, MAX_MANIFEST_BYTES))
        except TooLargeError as error:
            raise EngineRejectedError(str(error), [reasons.MANIFEST_MALFORMED]) from error
        except StorageError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise EngineRejectedError(
                    f"there is no manifest {path.name} beside it", [reasons.MISSING_MANIFEST]
                ) from error
            raise EngineRejectedError(str(error), [reasons.UNREADABLE]) from error

    def to_json(self) -> bytes:
        """Return the one byte sequence that stands for this manifest."""
        return _sealed(self._document())

    def signed_bytes(self) -> bytes:
        """Return what a signature covers: everything but the signature itself."""
        document = replace(self, signer="", signature="")._document()
        return b"gps_denied_inference engine manifest\n" + _canonical(document)

    @classmethod
    def from_json(cls, data: bytes) -> EngineManifest:
        """Read a manifest.

        Raises:
            EngineRejectedError: malformed, altered, or of another schema.
        """
        document = _parse(data)
        if "schema" in document and document["schema"] != SCHEMA:
            raise EngineRejectedError(
                f"the manifest has schema {document['schema']!r}, this version reads {SCHEMA}: "
                "compile the engine again",
                [reasons.SCHEMA],
            )
        document.pop(_DIGEST)
        try:
            return _build(document)
        except (KeyError, TypeError, ValueError) as error:
            raise EngineRejectedError(
                f"the manifest is malformed ({error}): compile the engine again",
                [reasons.MANIFEST_MALFORMED],
            ) from error

    def _document(self) -> dict[str, Any]:
        document = {item.name: getattr(self, item.name) for item in fields(self)}
        document["config"] = dict(self.config)
        document["builder_flags"] = dict(self.builder_flags)
        for name in ("inputs", "outputs"):
            document[name] = [
                {"name": spec.name, "shape": list(spec.shape), "dtype": spec.dtype}
                for spec in document[name]
            ]
        return document


def _canonical(document: Mapping[str, Any]) -> bytes:
    text = json.dumps(document, sort_keys=True, indent=2, ensure_ascii=True, allow_nan=False)
    return text.encode("ascii") + b"\n"


def _sealed(document: Mapping[str, Any]) -> bytes:
    digest = hashlib.sha256(_canonical(document)).hexdigest()
    return _canonical({**document, _DIGEST: digest})


def _parse(data: bytes) -> dict[str, Any]:
    """Return the JSON object in ``data`` after checking that it is intact."""
    try:
        if len(data) > MAX_MANIFEST_BYTES:
            raise ValueError(f"{len(data)} bytes are more than {MAX_MANIFEST_BYTES}")
        document = json.loads(data.decode("ascii"))
        if not isinstance(document, dict):
            raise TypeError("not an object")
        if not isinstance(document.get(_DIGEST), str):
            raise TypeError(f"no {_DIGEST}")
        content = {name: value for name, value in document.items() if name != _DIGEST}
        intact = _sealed(content) == data
    except (TypeError, ValueError, RecursionError) as error:
        raise EngineRejectedError(
            f"the manifest is malformed ({error}): compile the engine again",
            [reasons.MANIFEST_MALFORMED],
        ) from error
    if not intact:
        raise EngineRejectedError(
            "the manifest was altered after it was written: compile the engine again",
            [reasons.MANIFEST_ALTERED],
        )
    return document


def _build(document: dict[str, Any]) -> EngineManifest:
    expected = get_type_hints(EngineManifest)
    if set(document) != set(expected):
        odd = sorted(set(document) ^ set(expected))
        raise ValueError(f"fields missing or unknown: {', '.join(odd)}")
    values: dict[str, Any] = {}
    for name, kind in expected.items():
        value = document[name]
        if kind is int:
            _require(type(value) is int and value >= 0, name, "a whole number")
        elif kind is str:
            _require(isinstance(value, str), name, "text")
        elif get_origin(kind) is Literal:
            _require(value in get_args(kind), name, " or ".join(map(repr, get_args(kind))))
        elif name in ("inputs", "outputs"):
            value = tuple(_spec(item) for item in value)
        else:
            _require(isinstance(value, dict), name, "an object")
        values[name] = value
    for name in ("graph_sha256", "weights_sha256"):
        _require(values[name] == "" or bool(_HEX64.match(values[name])), name, "64 hex digits")
    _require(bool(_HEX64.match(values["artifact_sha256"])), "artifact_sha256", "64 hex digits")
    flags = values["builder_flags"].values()
    _require(all(isinstance(flag, str) for flag in flags), "builder_flags", "texts")
    return EngineManifest(**values)


def _spec(item: Any) -> TensorSpec:
    _require(isinstance(item, dict) and set(item) == {"name", "shape", "dtype"}, "tensor", "spec")
    _require(isinstance(item["name"], str) and isinstance(item["dtype"], str), "tensor", "named")
    shape = item["shape"]
    whole = isinstance(shape, list) and all(type(size) is int and size >= 0 for size in shape)
    _require(whole, "shape", "whole numbers")
    return TensorSpec(item["name"], tuple(shape), item["dtype"])


def _require(condition: bool, name: str, what: str) -> None:
    if not condition:
        raise ValueError(f"'{name}' must be {what}")

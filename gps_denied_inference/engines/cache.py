"""Engines on disk: found by what went into them, built once, published in one step.

Each engine has its own folder under the cache's root, holding the artefact and its manifest. An
engine is built in a staging folder beside it and renamed into place whole, so that a process
killed at any moment leaves either the old entry, the new one, or none; what it left in staging is
swept by the next build of the same engine and by ``maintenance.prune``. A lock per engine, given
back by the kernel when its holder dies, makes processes that want the same engine build it once.
A cache that cannot be written still serves what it holds. Nothing but ``maintenance.prune``, on
request, removes engines to make room.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import filelock

from gps_denied_inference.engines import reasons
from gps_denied_inference.engines.entry import EngineCacheEntry
from gps_denied_inference.engines.gate import EngineGate, GateDecision, RunningMachine
from gps_denied_inference.engines.layout import (
    CACHE,
    CACHE_ADVICE,
    PREPARED,
    RETIRED,
    STAGING,
    mark_root,
    sweep,
)
from gps_denied_inference.engines.manifest import EngineManifest, engine_config, manifest_path
from gps_denied_inference.errors import (
    EngineBuildError,
    EngineRejectedError,
    GpsDeniedInferenceError,
    InvalidParameterError,
    StorageError,
)
from gps_denied_inference.models.registry import default_registry
from gps_denied_inference.runtimes.specs import BuildConfig, Model, Precision, Progress, TensorSpec
from gps_denied_inference.storage.files import user_cache
from gps_denied_inference.storage.writing import (
    storage,
    storage_error,
    sync_folder,
    write_durably,
    write_file,
)
from gps_denied_inference.versions import installed_version

_LOG = logging.getLogger(__name__)

CachePolicy = Literal["build_if_needed", "load_only", "rebuild"]
POLICIES: tuple[CachePolicy, ...] = get_args(CachePolicy)
"""``load_only`` never builds (flight); ``rebuild`` always does (``gdi compile --force``)."""

Build = Callable[[Path, Progress], tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]]


@dataclass(frozen=True)
class EngineRecipe:
    """How a runtime builds an engine and for what machine.

    Attributes:
        runtime_id, runtime_version, compute_capability, device_name, precision: as in
            ``gate.RunningMachine``.
        suffix: of the artefact's file name, e.g. ``".onnx"``.
        builder_flags: what else the builder is told; part of the key.
        build: writes the artefact to the given path, reports progress, and returns the engine's
            inputs and outputs.
    """

    runtime_id: str
    runtime_version: str
    compute_capability: str
    device_name: str
    precision: Precision
    suffix: str
    build: Build
    builder_flags: Mapping[str, str] = field(default_factory=dict)

    @property
    def machine(self) -> RunningMachine:
        """The machine that the engine is for."""
        return RunningMachine(
            self.runtime_id,
            self.runtime_version,
            self.compute_capability,
            self.device_name,
            self.precision,
        )


def default_root() -> Path:
    """Return ``$XDG_CACHE_HOME/gps_denied_inference/engines`` (``~/.cache`` where it is unset).

    Raises:
        StorageError: there is no home folder either.
    """
    return user_cache("engines")


def cache_key(model: Model, config: BuildConfig, recipe: EngineRecipe) -> str:
    """Return the hex SHA-256 over everything that an engine's bytes depend on."""
    content = {
        "model": [model.name, model.architecture, model.kind, model.descriptor_dim],
        "graph": model.graph_sha256,
        "builder": _builder_revision(model.architecture),
        "weights": model.weights_sha256,
        "config": engine_config(config),
        "machine": dataclasses.astuple(recipe.machine),
        "flags": dict(recipe.builder_flags),
        "suffix": recipe.suffix,
        "package_version": installed_version("gps_denied_inference"),
    }
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@functools.cache
def _builder_revision(architecture: str) -> str:
    if architecture not in default_registry:
        return ""
    return default_registry.get(architecture).revision()


class EngineCache:
    """The engines of one folder.

    Args:
        root: the folder; made when the first engine is built. Default: :func:`default_root`.
        lock_timeout: s to wait for another process that builds the same engine.
    """

    def __init__(
        self,
        root: Path | None = None,
        *,
        lock_timeout: float = 1800.0,
    ) -> None:
        self.root = default_root() if root is None else Path(root)
        self.lock_timeout = lock_timeout

    def locate(self, model: Model, config: BuildConfig, recipe: EngineRecipe) -> Path:
        """Return where the engine lies or would lie."""
        label = (
            f"{model.name}-{recipe.runtime_id}-{recipe.precision}"
            f"-{config.width}x{config.height}-k{config.max_keypoints}"
        )
        label = re.sub(r"[^A-Za-z0-9_-]", "_", label)[:120]
        folder = f"{label}-{cache_key(model, config, recipe)[:16]}"
        return self.root / folder / f"engine{recipe.suffix}"

    def obtain(
        self,
        model: Model,
        config: BuildConfig,
        recipe: EngineRecipe,
        progress: Progress | None = None,
        policy: CachePolicy = "build_if_needed",
        gate: EngineGate | None = None,
    ) -> EngineCacheEntry:
        """Return the engine, from the cache where the gate accepts it, else built now.

        Args:
            gate: the runtime's own gate. One that requires signatures forbids building, since
                what is built here is not signed.

        Raises:
            EngineRejectedError: nothing acceptable is there and building is not allowed.
            EngineBuildError: the vendor's builder failed.
            StorageError: the folder cannot be written, the disk is full, the lock was not had.
            InvalidParameterError: unknown policy.
        """
        if policy not in POLICIES:
            raise InvalidParameterError("policy", policy, "one of " + ", ".join(POLICIES))
        gate = gate or EngineGate()
        report = progress or _silent
        artifact = self.locate(model, config, recipe)
        asked = (config, model, cache_key(model, config, recipe))
        if policy != "rebuild":
            decision = gate.check(artifact, recipe.machine, *asked)
            if decision.accepted:
                return self._entry(artifact, decision, model, config)
            if policy == "load_only" or gate.require_signature:
                why = (
                    "engine policy load_only builds none"
                    if policy == "load_only"
                    else "an engine built here would not be signed"
                )
                raise EngineRejectedError(
                    f"{decision.message}; {why}: prepare it with 'gdi compile'"
                    + (" and 'gdi sign'" if gate.require_signature else ""),
                    decision.reasons,
                )
            if reasons.MISSING_ARTIFACT not in decision.reasons:
                _LOG.warning("%s; building it again", decision.message)
        with self._locked(artifact.parent.name, report):
            if policy != "rebuild":
                decision = gate.check(artifact, recipe.machine, *asked)
                if decision.accepted:
                    return self._entry(artifact, decision, model, config)
            self._build(artifact, model, config, recipe, report)
            decision = EngineGate().check(artifact, recipe.machine, *asked)
        if not decision.accepted:
            raise EngineBuildError(f"the engine just built is not usable: {decision.message}")
        return self._entry(artifact, decision, model, config)

    def keep(self, artifact: Path) -> None:
        """Have an engine of this cache never pruned, as one that a user prepared.

        Raises:
            StorageError: its folder cannot be written.
        """
        if not (artifact.parent / PREPARED).is_file():
            write_file(artifact.parent / PREPARED, b"", "the mark of a prepared engine")

    def _entry(
        self, artifact: Path, decision: GateDecision, model: Model, config: BuildConfig
    ) -> EngineCacheEntry:
        if decision.manifest is None:
            raise EngineRejectedError(decision.message, decision.reasons)
        with contextlib.suppress(OSError):  # a read-only cache keeps no record of use
            os.utime(artifact)
        return EngineCacheEntry(artifact, decision.manifest, model, config)

    @contextlib.contextmanager
    def _locked(self, name: str, report: Progress) -> Iterator[None]:
        path = self.root / f"{name}.lock"
        mark_root(self.root)
        lock = filelock.FileLock(str(path))
        with storage("lock", path, "take"):
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                report(0.0, "waiting for another process that builds the same engine")
                _LOG.info("waiting for another process that builds %s", name)
                try:
                    lock.acquire(timeout=self.lock_timeout)
                except filelock.Timeout as error:
                    raise StorageError(
                        f"lock {path} was not to be had in {self.lock_timeout:g} s: another "
                        "process is still building the same engine"
                    ) from error
        try:
            yield
        finally:
            lock.release()

    def _build(
        self,
        artifact: Path,
        model: Model,
        config: BuildConfig,
        recipe: EngineRecipe,
        report: Progress,
    ) -> None:
        folder = artifact.parent
        staging = self.root / f"{STAGING}{folder.name}-{uuid.uuid4().hex}"
        with storage(CACHE, self.root, "write to", CACHE_ADVICE):
            sweep(self.root, folder.name)
            staging.mkdir()
        try:
            staged = staging / artifact.name
            inputs, outputs = _call_builder(recipe, staged, report)
            with storage(CACHE, self.root, "write to", CACHE_ADVICE):
                size, digest = _flush_and_hash(staged)
                manifest = EngineManifest(
                    model=model.name,
                    architecture=model.architecture,
                    kind=model.kind,
                    descriptor_dim=model.descriptor_dim,
                    graph_sha256=model.graph_sha256,
                    weights_sha256=model.weights_sha256,
                    artifact_size=size,
                    artifact_sha256=digest,
                    runtime_id=recipe.runtime_id,
                    runtime_version=recipe.runtime_version,
                    compute_capability=recipe.compute_capability,
                    device_name=recipe.device_name,
                    precision=recipe.precision,
                    config=engine_config(config),
                    inputs=inputs,
                    outputs=outputs,
                    builder_flags=dict(recipe.builder_flags),
                    cache_key=cache_key(model, config, recipe),
                    created=_now(),
                    package_version=installed_version("gps_denied_inference"),
                )
                write_durably(manifest_path(staged), manifest.to_json())
                if (folder / PREPARED).is_file():
                    write_durably(staging / PREPARED, b"")
                sync_folder(staging)
                if folder.exists():
                    folder.rename(self.root / f"{RETIRED}{folder.name}-{uuid.uuid4().hex}")
                staging.rename(folder)
                sync_folder(self.root)
                sweep(self.root, folder.name)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        report(1.0, "engine stored")


def _call_builder(
    recipe: EngineRecipe, staged: Path, report: Progress
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    try:
        inputs, outputs = recipe.build(staged, report)
    except GpsDeniedInferenceError:
        raise
    except OSError as error:
        root, named = staged.parent.parent, error.filename
        if isinstance(named, str) and not Path(named).is_relative_to(root):
            raise storage_error("file", Path(named), "use", error) from error
        raise storage_error(CACHE, root, "write to", error, CACHE_ADVICE) from error
    except Exception as error:
        raise EngineBuildError(
            f"{recipe.runtime_id} could not build the engine: {error}"
        ) from error
    if not staged.is_file():
        raise EngineBuildError(f"{recipe.runtime_id} built no engine file")
    return tuple(inputs), tuple(outputs)


def _flush_and_hash(path: Path) -> tuple[int, str]:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
        return stream.tell(), digest.hexdigest()


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _silent(share: float, what: str) -> None:
    del share, what

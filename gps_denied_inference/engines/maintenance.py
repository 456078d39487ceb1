"""Looking through an engine cache and pruning it."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import filelock

from gps_denied_inference.engines.cache import RETIRED, STAGING, EngineCache, sweep
from gps_denied_inference.engines.manifest import EngineManifest, manifest_path
from gps_denied_inference.engines.storage import storage_error
from gps_denied_inference.errors import EngineRejectedError, InvalidParameterError


@dataclass(frozen=True)
class CachedEngine:
    """One folder of the cache.

    Attributes:
        folder: where it lies.
        artifact: the engine file, or None where there is none.
        size: bytes, everything in the folder.
        last_used: s since the epoch.
        manifest: None where it is missing or refused; then ``problem`` says why.
        problem: one line; empty = the manifest is intact (the artefact was not hashed).
    """

    folder: Path
    artifact: Path | None
    size: int
    last_used: float
    manifest: EngineManifest | None
    problem: str = ""


def entries(cache: EngineCache) -> list[CachedEngine]:
    """Return what the cache holds, most recently used first."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for folder in cache.root.iterdir():
            if not folder.name.startswith(".") and folder.is_dir() and not folder.is_symlink():
                with contextlib.suppress(FileNotFoundError):  # pruned by another process meanwhile
                    found.append(_describe(folder))
    return sorted(found, key=lambda entry: (-entry.last_used, entry.folder.name))


def prune(
    cache: EngineCache,
    *,
    max_bytes: int | None = None,
    max_age: float | None = None,
    keep: Path | None = None,
) -> list[CachedEngine]:
    """Remove old engines, and what killed builds left behind; return the engines removed.

    Engines that another process is building right now are left alone.

    Args:
        max_bytes: least recently used engines go until no more than this is left.
        max_age: s; engines not used for longer go.
        keep: this folder stays.

    Raises:
        InvalidParameterError: a negative bound.
        StorageError: an engine could not be removed.
    """
    for name, bound in (("max_bytes", max_bytes), ("max_age", max_age)):
        if bound is not None and not bound >= 0:
            raise InvalidParameterError(name, bound, "0 or more")
    _sweep_orphans(cache)
    held = entries(cache)
    total = sum(entry.size for entry in held)
    removed = []
    for entry in reversed(held):
        too_old = max_age is not None and time.time() - entry.last_used > max_age
        too_much = max_bytes is not None and total > max_bytes
        if entry.folder == keep or not (too_old or too_much):
            continue
        with _try_lock(cache, entry.folder.name) as mine:
            if mine and _remove(entry.folder):
                removed.append(entry)
                total -= entry.size
    return removed


def _describe(folder: Path) -> CachedEngine:
    files = [path for path in folder.rglob("*") if path.is_file()]
    stats = {path: path.stat() for path in files}
    size = sum(stat.st_size for stat in stats.values())
    artifacts = [path for path in files if path.parent == folder and path.stem == "engine"]
    if not artifacts:
        problem = "there is no engine file"
        return CachedEngine(folder, None, size, folder.stat().st_mtime, None, problem)
    artifact = artifacts[0]
    last_used = stats[artifact].st_mtime  # set by every EngineCache.obtain
    path = manifest_path(artifact)
    if path not in stats:
        problem = "there is no manifest"
    else:
        try:
            manifest = EngineManifest.from_json(path.read_bytes())
            return CachedEngine(folder, artifact, size, last_used, manifest)
        except EngineRejectedError as error:
            problem = str(error)
        except OSError as error:
            problem = f"the manifest cannot be read: {error.strerror}"
    return CachedEngine(folder, artifact, size, last_used, None, problem)


def _sweep_orphans(cache: EngineCache) -> None:
    names = set()
    for prefix in (STAGING, RETIRED):
        for left in cache.root.glob(f"{prefix}*-*"):
            names.add(left.name[len(prefix) :].rpartition("-")[0])
    for name in names:
        with _try_lock(cache, name) as mine:
            if mine:
                sweep(cache.root, name)


def _remove(folder: Path) -> bool:
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise storage_error(folder, "prune", error) from error
    return True


@contextlib.contextmanager
def _try_lock(cache: EngineCache, name: str) -> Iterator[bool]:
    path = cache.root / f"{name}.lock"
    lock = filelock.FileLock(str(path))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        yield False
        return
    except OSError as error:
        raise storage_error(path, "lock", error) from error
    try:
        yield True
    finally:
        lock.release()

"""Looking through an engine cache and pruning it."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import filelock

from gps_denied_inference.engines.cache import EngineCache
from gps_denied_inference.engines.layout import (
    CACHE,
    MARKER,
    PREPARED,
    is_engine_folder,
    is_marked,
    is_own_file,
    left_behind,
    sweep,
)
from gps_denied_inference.engines.manifest import EngineManifest, manifest_path
from gps_denied_inference.errors import EngineRejectedError, InvalidParameterError, StorageError
from gps_denied_inference.storage.writing import storage_error


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
        kept: why it is never pruned; empty = it may be.
    """

    folder: Path
    artifact: Path | None
    size: int
    last_used: float
    manifest: EngineManifest | None
    problem: str = ""
    kept: str = ""


def entries(cache: EngineCache) -> list[CachedEngine]:
    """Return the engines that the cache holds, most recently used first.

    Raises:
        StorageError: the folder cannot be listed.
    """
    found = []
    try:
        for folder in cache.root.iterdir():
            if not folder.name.startswith(".") and is_engine_folder(folder):
                with contextlib.suppress(FileNotFoundError):  # pruned by another process meanwhile
                    found.append(_describe(folder))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise storage_error(CACHE, cache.root, "list", error) from error
    return sorted(found, key=lambda entry: (-entry.last_used, entry.folder.name))


def prune(
    cache: EngineCache,
    *,
    max_bytes: int | None = None,
    max_age: float | None = None,
) -> list[CachedEngine]:
    """Remove old engines, and what killed builds left behind; return the engines removed.

    Removed is only what carries this package's manifest and holds nothing else, in a folder that
    this package marked. Engines that another process is building right now, that were prepared
    with ``gdi compile`` or that are signed stay, whatever the bounds.

    Args:
        max_bytes: least recently used engines go until no more than this is left.
        max_age: s; engines not used for longer go.

    Raises:
        InvalidParameterError: a negative bound.
        StorageError: the cache's folder is not marked, or an engine could not be removed.
    """
    for name, bound in (("max_bytes", max_bytes), ("max_age", max_age)):
        if bound is not None and not bound >= 0:
            raise InvalidParameterError(name, bound, "0 or more")
    if not is_marked(cache.root):
        with contextlib.suppress(OSError):
            if not any(cache.root.iterdir()):
                return []
        if not cache.root.exists():
            return []
        raise StorageError(
            f"{cache.root} is not marked as an engine cache (no file {MARKER}): nothing was removed"
        )
    _sweep_orphans(cache)
    held = entries(cache)
    total = sum(entry.size for entry in held)
    removed = []
    for entry in reversed(held):
        too_old = max_age is not None and time.time() - entry.last_used > max_age
        too_much = max_bytes is not None and total > max_bytes
        if entry.kept or not (too_old or too_much):
            continue
        with _try_lock(cache, entry.folder.name) as mine:
            if mine and not _describe(entry.folder).kept and _remove(entry.folder):
                removed.append(entry)
                total -= entry.size
    return removed


def _describe(folder: Path) -> CachedEngine:
    try:
        files = list(folder.iterdir())
        stats = {path: path.lstat() for path in files}
    except PermissionError as error:
        problem = f"the folder cannot be read: {error.strerror}"
        return CachedEngine(folder, None, 0, folder.lstat().st_mtime, None, problem, problem)
    size = sum(stat.st_size for stat in stats.values())
    artifacts = [path for path in files if path.stem == "engine" and path.is_file()]
    if not artifacts:
        problem = "there is no engine file"
        return CachedEngine(folder, None, size, folder.stat().st_mtime, None, problem, problem)
    artifact = artifacts[0]
    last_used = stats[artifact].st_mtime  # set by every EngineCache.obtain
    path = manifest_path(artifact)
    if path not in stats:
        problem = "there is no manifest"
    else:
        try:
            manifest = EngineManifest.read(artifact)
        except EngineRejectedError as error:
            problem = str(error)
        else:
            kept = _why_kept(folder, files, manifest)
            return CachedEngine(folder, artifact, size, last_used, manifest, "", kept)
    return CachedEngine(folder, artifact, size, last_used, None, problem, problem)


def _why_kept(folder: Path, files: list[Path], manifest: EngineManifest) -> str:
    if not folder.name.endswith(f"-{manifest.cache_key[:16]}"):
        return "its manifest is another engine's"
    if manifest.signer or manifest.signature:
        return "signed"
    if folder / PREPARED in files:
        return "prepared with 'gdi compile'"
    foreign = [path.name for path in files if not is_own_file(path)]
    return f"holds foreign files ({foreign[0]})" if foreign else ""


def _sweep_orphans(cache: EngineCache) -> None:
    for name in left_behind(cache.root):
        with _try_lock(cache, name) as mine:
            if mine:
                sweep(cache.root, name)


def _remove(folder: Path) -> bool:
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise storage_error("engine", folder, "remove", error) from error
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
        raise storage_error("lock", path, "take", error) from error
    try:
        yield True
    finally:
        lock.release()

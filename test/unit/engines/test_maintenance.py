"""Listing and pruning an engine cache."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path

import filelock
import pytest

from gps_denied_inference.engines.cache import STAGING, EngineCache
from gps_denied_inference.engines.maintenance import entries, prune
from gps_denied_inference.engines.manifest import manifest_path
from gps_denied_inference.errors import InvalidParameterError
from gps_denied_inference.runtimes.contract import BuildConfig, Model
from gps_denied_inference.runtimes.fake import FakeRuntime

MODEL = Model("xfeat", "xfeat", "extractor", 64)
CONFIG = BuildConfig(height=64, width=96)
DAY = 86_400.0


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path)


def fill(cache: EngineCache, count: int) -> list[Path]:
    """Build engines; the first was used ``count - 1`` days ago, the last just now."""
    runtime = FakeRuntime(cache=cache)
    folders = []
    for number in range(count):
        config = dataclasses.replace(CONFIG, max_keypoints=number + 1)
        folder = runtime.compile_engine(MODEL, config).artifact.parent
        used = time.time() - (count - 1 - number) * DAY
        for path in folder.iterdir():
            os.utime(path, (used, used))
        folders.append(folder)
    return folders


def test_lists_what_is_there_newest_first(cache: EngineCache) -> None:
    folders = fill(cache, 3)
    manifest_path(folders[0] / "engine.json").unlink()
    manifest_path(folders[1] / "engine.json").write_text("{}")
    found = entries(cache)
    assert [entry.folder for entry in found] == folders[::-1]
    assert found[0].manifest is not None
    assert found[0].manifest.model == "xfeat"
    assert found[0].size == sum(path.stat().st_size for path in folders[2].iterdir())
    assert [bool(entry.problem) for entry in found] == [False, True, True]


def test_empty_and_absent_caches(tmp_path: Path) -> None:
    assert entries(EngineCache(tmp_path / "absent")) == []
    assert prune(EngineCache(tmp_path / "absent"), max_bytes=0) == []


def test_age(cache: EngineCache) -> None:
    folders = fill(cache, 4)
    removed = prune(cache, max_age=1.5 * DAY)
    assert [entry.folder for entry in removed] == folders[:2]
    assert [entry.folder for entry in entries(cache)] == folders[:1:-1]


def test_size_takes_the_least_recently_used(cache: EngineCache) -> None:
    folders = fill(cache, 4)
    sizes = {entry.folder: entry.size for entry in entries(cache)}
    removed = prune(cache, max_bytes=sizes[folders[2]] + sizes[folders[3]])
    assert [entry.folder for entry in removed] == folders[:2]
    assert prune(cache, max_bytes=0, keep=folders[3])[0].folder == folders[2]
    assert [entry.folder for entry in entries(cache)] == [folders[3]]


def test_use_makes_an_engine_young(cache: EngineCache) -> None:
    folders = fill(cache, 3)
    FakeRuntime(cache=cache).compile_engine(MODEL, dataclasses.replace(CONFIG, max_keypoints=1))
    removed = prune(cache, max_age=0.5 * DAY)
    assert [entry.folder for entry in removed] == [folders[1]]


def test_engine_under_construction_is_left_alone(cache: EngineCache) -> None:
    (folder,) = fill(cache, 1)
    staging = cache.root / f"{STAGING}{folder.name}-0"
    staging.mkdir()
    with filelock.FileLock(str(cache.root / f"{folder.name}.lock")):
        assert prune(cache, max_bytes=0) == []
        assert staging.exists()
    assert [entry.folder for entry in prune(cache, max_bytes=0)] == [folder]
    assert not staging.exists()


def test_build_beyond_the_limit_prunes_the_others(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path, max_bytes=1)
    runtime = FakeRuntime(cache=cache)
    runtime.compile_engine(MODEL, CONFIG)
    last = runtime.compile_engine(MODEL, dataclasses.replace(CONFIG, max_keypoints=7))
    assert [entry.artifact for entry in entries(cache)] == [last.artifact]


@pytest.mark.parametrize("bound", [{"max_bytes": -1}, {"max_age": float("nan")}])
def test_senseless_bounds(cache: EngineCache, bound: dict[str, float]) -> None:
    with pytest.raises(InvalidParameterError, match="0 or more"):
        prune(cache, **bound)  # type: ignore[arg-type]

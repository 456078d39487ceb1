"""Listing and pruning an engine cache."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from pathlib import Path

import filelock
import pytest

from gps_denied_inference.engines.cache import EngineCache
from gps_denied_inference.engines.layout import MARKER, STAGING, TAG
from gps_denied_inference.engines.maintenance import entries, prune
from gps_denied_inference.engines.manifest import manifest_path
from gps_denied_inference.errors import InvalidParameterError, StorageError
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
    assert [entry.folder for entry in entries(cache)] == folders[:1:-1]


def test_use_makes_an_engine_young(cache: EngineCache) -> None:
    folders = fill(cache, 3)
    FakeRuntime(cache=cache).compile_engine(MODEL, dataclasses.replace(CONFIG, max_keypoints=1))
    removed = prune(cache, max_age=0.5 * DAY)
    assert [entry.folder for entry in removed] == [folders[1]]


def test_engine_under_construction_is_left_alone(cache: EngineCache) -> None:
    (folder,) = fill(cache, 1)
    staging = cache.root / f"{STAGING}{folder.name}-{'0' * 32}"
    staging.mkdir()
    with filelock.FileLock(str(cache.root / f"{folder.name}.lock")):
        assert prune(cache, max_bytes=0) == []
        assert staging.exists()
    assert [entry.folder for entry in prune(cache, max_bytes=0)] == [folder]
    assert not staging.exists()


def test_building_removes_nothing(tmp_path: Path) -> None:
    """A finished build succeeds beside folders that it may not even list, and touches none."""
    foreign = tmp_path / "flights"
    foreign.mkdir()
    (foreign / "log.bin").write_bytes(b"x")
    with (tmp_path / "large.bin").open("wb") as stream:
        stream.truncate(9 << 30)  # sparse: more than any limit that a cache had
    (foreign / "larger.bin").hardlink_to(tmp_path / "large.bin")
    os.utime(foreign, (0, 0))
    cache = EngineCache(tmp_path)
    fill(cache, 2)
    assert (foreign / "log.bin").read_bytes() == b"x"
    assert len(entries(cache)) == 2
    assert (tmp_path / MARKER).is_file()
    assert not (tmp_path / TAG).exists(), "backups would leave the foreign folder out"


def test_a_folder_of_its_own_is_tagged_as_a_cache(cache: EngineCache) -> None:
    fill(cache, 1)
    assert (
        (cache.root / TAG).read_bytes().startswith(b"Signature: 8a477f597d28d172789f06886806bc55\n")
    )


def test_what_is_not_ours_stays(cache: EngineCache) -> None:
    (engine, used_for_notes, damaged) = fill(cache, 3)
    (used_for_notes / "notes.txt").write_text("mine")
    manifest_path(damaged / "engine.json").write_text("{}")
    foreign = [cache.root / name for name in ("data", f"data-{'a' * 16}", ".staging-a-b")]
    for folder in foreign:
        folder.mkdir()
        (folder / "engine.json").write_text("{}")
    assert [entry.folder for entry in prune(cache, max_bytes=0, max_age=0)] == [engine]
    for folder in (*foreign, used_for_notes, damaged):
        assert (folder / "engine.json").is_file()
    assert not (cache.root / "data.lock").exists()


def test_a_manifest_copied_elsewhere_gives_no_right(cache: EngineCache) -> None:
    (engine,) = fill(cache, 1)
    other = cache.root / f"other-{'b' * 16}"
    shutil.copytree(engine, other)
    assert [entry.folder for entry in prune(cache, max_bytes=0)] == [engine]
    assert other.is_dir()


def test_a_root_without_the_mark_is_refused(cache: EngineCache) -> None:
    (engine,) = fill(cache, 1)
    (cache.root / MARKER).unlink()
    with pytest.raises(StorageError, match="not marked as an engine cache.*nothing was removed"):
        prune(cache, max_bytes=0)
    assert engine.is_dir()


def test_prepared_engines_stay_through_a_rebuild(cache: EngineCache) -> None:
    runtime = FakeRuntime(cache=cache, policy="rebuild")
    entry = runtime.compile_engine(MODEL, CONFIG)
    cache.keep(entry.artifact)
    runtime.compile_engine(MODEL, CONFIG)
    assert prune(cache, max_bytes=0) == []
    assert entry.artifact.is_file()


@pytest.mark.parametrize("bound", [{"max_bytes": -1}, {"max_age": float("nan")}])
def test_senseless_bounds(cache: EngineCache, bound: dict[str, float]) -> None:
    with pytest.raises(InvalidParameterError, match="0 or more"):
        prune(cache, **bound)  # type: ignore[arg-type]

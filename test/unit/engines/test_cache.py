"""The engine cache: what is found, what is built, and what the file system refuses."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import multiprocessing
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock
import pytest

from gps_denied_inference.engines import cache as engine_cache
from gps_denied_inference.engines import maintenance, reasons
from gps_denied_inference.engines.cache import (
    EngineCache,
    EngineRecipe,
    cache_key,
    default_root,
)
from gps_denied_inference.engines.layout import MARKER
from gps_denied_inference.engines.manifest import manifest_path
from gps_denied_inference.errors import (
    EngineBuildError,
    EngineRejectedError,
    InvalidParameterError,
    ModelIntegrityError,
    StorageError,
)
from gps_denied_inference.models.registry import Architecture, default_registry
from gps_denied_inference.runtimes.contract import BuildConfig, Model, Progress
from gps_denied_inference.runtimes.specs import engine_tensors

MODEL = Model("xfeat", "xfeat", "extractor", 64, graph_sha256="a" * 64)
CONFIG = BuildConfig(height=64, width=96, max_keypoints=50)
SPECS = engine_tensors(MODEL, CONFIG)


class Builder:
    """Writes ``content`` and counts how often."""

    def __init__(self, content: bytes = b"engine " * 10_000) -> None:
        self.content = content
        self.count = 0

    def __call__(self, path: Path, report: Progress) -> object:
        self.count += 1
        report(0.5, "building")
        path.write_bytes(self.content)
        return SPECS


def recipe(build: Callable[[Path, Progress], object], **changes: object) -> EngineRecipe:
    plain = EngineRecipe("test", "1.0", "8.7", "Orin", "fp32", ".bin", build)  # type: ignore[arg-type]
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "deep" / "cache")


def leftovers(cache: EngineCache) -> list[str]:
    """Names in the cache's root that are neither engines nor locks nor the mark."""
    names = {path.name for path in cache.root.iterdir() if path.name.startswith(".")}
    return sorted(names - {MARKER})


def test_builds_once_and_finds_again(cache: EngineCache) -> None:
    builder = Builder()
    said: list[tuple[float, str]] = []
    entry = cache.obtain(MODEL, CONFIG, recipe(builder), lambda *step: said.append(step))
    assert said == [(0.5, "building"), (1.0, "engine stored")]
    assert entry.artifact.read_bytes() == builder.content
    assert (entry.model, entry.config) == (MODEL, CONFIG)
    again = cache.obtain(MODEL, CONFIG, recipe(builder))
    assert again == entry
    assert builder.count == 1
    assert leftovers(cache) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"runtime_id": "other"},
        {"runtime_version": "1.1"},
        {"compute_capability": "9.0"},
        {"device_name": "Thor"},
        {"precision": "fp16"},
        {"builder_flags": {"level": "5"}},
    ],
)
def test_another_machine_or_flag_is_another_engine(
    cache: EngineCache, changes: dict[str, object]
) -> None:
    builder = Builder()
    first = cache.obtain(MODEL, CONFIG, recipe(builder))
    config = dataclasses.replace(CONFIG, precision=str(changes.get("precision", "fp32")))
    second = cache.obtain(MODEL, config, recipe(builder, **changes))
    assert first.artifact != second.artifact
    assert builder.count == 2


def test_key_depends_on_what_the_engine_is_made_of() -> None:
    plain = recipe(Builder())
    key = cache_key(MODEL, CONFIG, plain)
    for changes in ({"graph_sha256": "b" * 64}, {"weights_sha256": "b" * 64}, {"name": "other"}):
        assert cache_key(dataclasses.replace(MODEL, **changes), CONFIG, plain) != key  # type: ignore[arg-type]
    for changes in ({"height": 96}, {"detection_threshold": 0.1}, {"options": {"a": "b"}}):
        assert cache_key(MODEL, dataclasses.replace(CONFIG, **changes), plain) != key  # type: ignore[arg-type]
    target = {"options": {"compute_capability": "8.9"}}  # stands in the machine's own fields
    for changes in ({"threads": 4}, {"warmup_iterations": 9}, {"cuda_graph": False}, target):
        assert cache_key(MODEL, dataclasses.replace(CONFIG, **changes), plain) == key  # type: ignore[arg-type]


def test_odd_model_names_stay_inside_the_cache(cache: EngineCache) -> None:
    model = dataclasses.replace(MODEL, name="../../x/\N{GREEK SMALL LETTER ALPHA}" * 40)
    path = cache.locate(model, CONFIG, recipe(Builder()))
    assert path.parent.parent == cache.root
    assert path.resolve().is_relative_to(cache.root.resolve())
    assert len(path.parent.name) < 200


def test_load_only_never_builds(cache: EngineCache) -> None:
    builder = Builder()
    with pytest.raises(EngineRejectedError, match="load_only builds none.*gdi compile") as raised:
        cache.obtain(MODEL, CONFIG, recipe(builder), policy="load_only")
    assert raised.value.reasons == (reasons.MISSING_ARTIFACT,)
    assert builder.count == 0
    assert not cache.root.exists()
    cache.obtain(MODEL, CONFIG, recipe(builder))
    cache.obtain(MODEL, CONFIG, recipe(builder), policy="load_only")
    assert builder.count == 1


def test_load_only_refuses_damage(cache: EngineCache) -> None:
    entry = cache.obtain(MODEL, CONFIG, recipe(Builder()))
    manifest_path(entry.artifact).unlink()
    with pytest.raises(EngineRejectedError) as raised:
        cache.obtain(MODEL, CONFIG, recipe(Builder()), policy="load_only")
    assert raised.value.reasons == (reasons.MISSING_MANIFEST,)


def test_damage_is_built_anew_and_said(
    cache: EngineCache, caplog: pytest.LogCaptureFixture
) -> None:
    builder = Builder()
    entry = cache.obtain(MODEL, CONFIG, recipe(builder))
    entry.artifact.write_bytes(b"x" * len(builder.content))
    again = cache.obtain(MODEL, CONFIG, recipe(builder))
    assert again.artifact.read_bytes() == builder.content
    assert "SHA-256" in caplog.text
    assert "building it again" in caplog.text


def test_rebuild_replaces(cache: EngineCache) -> None:
    cache.obtain(MODEL, CONFIG, recipe(Builder(b"old")))
    entry = cache.obtain(MODEL, CONFIG, recipe(Builder(b"new")), policy="rebuild")
    assert entry.artifact.read_bytes() == b"new"
    assert leftovers(cache) == []


def test_unknown_policy(cache: EngineCache) -> None:
    with pytest.raises(InvalidParameterError, match="build_if_needed, load_only, rebuild"):
        cache.obtain(MODEL, CONFIG, recipe(Builder()), policy="always")


def raising(error: Exception) -> Callable[[Path, Progress], object]:
    def build(path: Path, report: Progress) -> object:
        path.write_bytes(b"half an eng")
        raise error

    return build


def test_failed_build_leaves_nothing_and_keeps_its_cause(cache: EngineCache) -> None:
    cause = RuntimeError("no tactic")
    with pytest.raises(EngineBuildError, match="no tactic") as raised:
        cache.obtain(MODEL, CONFIG, recipe(raising(cause)))
    assert raised.value.__cause__ is cause
    with pytest.raises(ModelIntegrityError):
        cache.obtain(MODEL, CONFIG, recipe(raising(ModelIntegrityError("bad"))))
    with pytest.raises(StorageError, match=f"{cache.root}.*No space left.*gdi cache prune"):
        cache.obtain(MODEL, CONFIG, recipe(raising(OSError(errno.ENOSPC, "No space left"))))
    assert leftovers(cache) == []
    assert maintenance.entries(cache) == []
    cache.obtain(MODEL, CONFIG, recipe(Builder()))


def test_failed_rebuild_keeps_the_old_engine(cache: EngineCache) -> None:
    entry = cache.obtain(MODEL, CONFIG, recipe(Builder(b"old")))
    with pytest.raises(EngineBuildError):
        cache.obtain(MODEL, CONFIG, recipe(raising(ValueError("no"))), policy="rebuild")
    assert entry.artifact.read_bytes() == b"old"
    assert cache.obtain(MODEL, CONFIG, recipe(Builder()), policy="load_only") == entry


def test_builder_that_writes_nothing(cache: EngineCache) -> None:
    with pytest.raises(EngineBuildError, match="built no engine file"):
        cache.obtain(MODEL, CONFIG, recipe(lambda path, report: SPECS))


def test_lock_that_is_not_to_be_had(cache: EngineCache) -> None:
    impatient = EngineCache(cache.root, lock_timeout=0.1)
    cache.root.mkdir(parents=True)
    folder = cache.locate(MODEL, CONFIG, recipe(Builder())).parent.name
    said: list[str] = []
    with (
        filelock.FileLock(str(cache.root / f"{folder}.lock")),
        pytest.raises(StorageError, match=r"\.lock was not to be had in 0\.1 s"),
    ):
        impatient.obtain(MODEL, CONFIG, recipe(Builder()), lambda share, what: said.append(what))
    assert said == ["waiting for another process that builds the same engine"]


def test_default_root_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_root() == Path("/somewhere/gps_denied_inference/engines")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    monkeypatch.setenv("HOME", "/home/pilot")
    assert default_root() == Path("/home/pilot/.cache/gps_denied_inference/engines")


def test_eight_processes_build_once(cache: EngineCache) -> None:
    context = multiprocessing.get_context("fork")
    start, results = context.Event(), context.SimpleQueue()

    def work() -> None:
        builder = Builder()

        def slow(path: Path, report: Progress) -> object:
            time.sleep(0.2)  # long enough for all others to arrive meanwhile
            return builder(path, report)

        start.wait()
        entry = cache.obtain(MODEL, CONFIG, recipe(slow))
        results.put((builder.count, entry.manifest.artifact_sha256))

    children = [context.Process(target=work) for _ in range(8)]
    for child in children:
        child.start()
    start.set()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0] * 8
    counts, digests = zip(*(results.get() for _ in children), strict=True)
    assert sum(counts) == 1
    assert len(set(digests)) == 1


@contextlib.contextmanager
def ordinary_user() -> Iterator[None]:
    """The superuser may write everywhere: do the block as nobody."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter (pytest's own are for their owner only)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        for path in (folder, *folder.rglob("*")):
            if path.is_dir():
                path.chmod(0o755)


def test_read_only_folder_is_named_and_still_serves(open_folder: Path) -> None:
    cache = EngineCache(open_folder / "cache")
    builder = Builder()
    entry = cache.obtain(MODEL, CONFIG, recipe(builder))
    for path in (cache.root, *cache.root.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    with ordinary_user():
        assert cache.obtain(MODEL, CONFIG, recipe(builder)).artifact == entry.artifact
        other = dataclasses.replace(CONFIG, max_keypoints=51)
        with pytest.raises(StorageError, match=f"{cache.root}.*ermission denied.*make it writ"):
            cache.obtain(MODEL, other, recipe(builder))
        with pytest.raises(StorageError, match=f"{open_folder}.*ermission denied"):
            EngineCache(open_folder / "cache" / "deeper").obtain(MODEL, CONFIG, recipe(builder))
    assert builder.count == 1


def test_a_file_in_the_cache_s_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=f"{tmp_path}/file"):
        EngineCache(tmp_path / "file").obtain(MODEL, CONFIG, recipe(Builder()))


def test_file_size_limit_is_told_like_a_full_disk(cache: EngineCache) -> None:
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            cache.obtain(MODEL, CONFIG, recipe(Builder()))
        except StorageError as error:
            results.put(str(error))

    child = context.Process(target=work)
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert not results.empty(), "a file beyond the limit was written"
    message = results.get()
    assert str(cache.root) in message
    assert "free space there" in message
    assert leftovers(cache) == []
    cache.obtain(MODEL, CONFIG, recipe(Builder()))


def test_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk can be mounted by the superuser only")
    try:
        cache = EngineCache(disk / "cache")
        with pytest.raises(StorageError, match=f"{cache.root}: No space left.*free space"):
            cache.obtain(MODEL, CONFIG, recipe(Builder(b"x" * 100_000)))
        assert leftovers(cache) == []
        # An engine that just fits leaves no room for its manifest.
        with pytest.raises(StorageError, match="No space left"):
            cache.obtain(MODEL, CONFIG, recipe(Builder(b"x" * 64 * 1024)))
        assert leftovers(cache) == []
        assert maintenance.entries(cache) == []
        cache.obtain(MODEL, CONFIG, recipe(Builder(b"x" * 1000)))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_changed_graph_builder_is_another_engine(
    cache: EngineCache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One line of the builder's source differs; the package's version does not."""
    package = tmp_path / "outer" / "inner"
    package.mkdir(parents=True)
    for folder in (package.parent, package):
        (folder / "__init__.py").touch()
    builder, beside = package / "graph.py", package / "blocks.py"
    builder.write_text("def assemble(network, model, config): return network\n")
    beside.write_text("SIZE = 3\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    entry = Architecture("mine", "outer.inner.graph:assemble", "outer.inner.graph:assemble")
    revision = entry.revision()
    assert entry.revision() == revision
    beside.write_text("SIZE = 5\n")
    assert entry.revision() != revision
    before = cache_key(MODEL, CONFIG, recipe(Builder()))
    monkeypatch.setattr(engine_cache, "_builder_revision", lambda architecture: revision)
    assert cache_key(MODEL, CONFIG, recipe(Builder())) != before


def test_every_architecture_here_has_a_revision_of_its_own() -> None:
    revisions = {name: default_registry.get(name).revision() for name in ("xfeat", "aliked")}
    assert len(set(revisions.values())) == 2

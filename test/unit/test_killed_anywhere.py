"""kill -9 at random moments of building, caching, preparing a map and signing.

No moment leaves a state that is accepted and wrong, or that keeps the next one from its work; and
nothing that lies beside it is touched. ``GDI_LONG_TESTS=1`` kills 1,000 times, ``GDI_KILLS`` any
other number.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rasterio", reason="rasterio is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from gps_denied_inference.engines import reasons, signing
from gps_denied_inference.engines.cache import EngineCache
from gps_denied_inference.engines.gate import EngineGate
from gps_denied_inference.engines.layout import RETIRED, STAGING
from gps_denied_inference.engines.maintenance import prune
from gps_denied_inference.errors import MapError
from gps_denied_inference.maps.making import Source
from gps_denied_inference.maps.prepare import describe_map, engine_settings, prepare
from gps_denied_inference.maps.store import MapStore
from gps_denied_inference.models import zoo
from gps_denied_inference.runtimes import create_runtime
from gps_denied_inference.runtimes.contract import BuildConfig
from gps_denied_inference.settings import Settings

KILLS = int(
    os.environ.get("GDI_KILLS", "1000" if os.environ.get("GDI_LONG_TESTS") == "1" else "40")
)
CONFIG = BuildConfig(height=64, width=64, channels=1, max_keypoints=20, device="cpu", threads=1)
LIMIT_S = 60.0
ROOT = Path(__file__).resolve().parents[2]


class Foreign:
    """Files that are none of this package's, in and beside its folders, named to be mistaken."""

    def __init__(self, *folders: Path) -> None:
        self._kept: dict[Path, tuple[str, int]] = {}
        for folder in folders:
            for name in ("notes.txt", ".staging-mine", f"flight-{'0' * 16}/engine.onnx",
                         "key.pem.bak", "town.map.old"):  # fmt: skip
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"foreign: {path}")
                self._kept[path] = self._seen(path)

    @staticmethod
    def _seen(path: Path) -> tuple[str, int]:
        return hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns

    def touched(self) -> list[Path]:
        return [p for p, kept in self._kept.items() if not p.exists() or self._seen(p) != kept]


def forked(work: Callable[[], None]) -> int:
    """Run ``work`` in a child; nothing here may have opened an engine before."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:
            os.write(2, f"the child failed: {error!r}\n".encode())
            os._exit(1)
        os._exit(0)
    return pid


def finished(work: Callable[[], None], times: int = 1) -> float:
    """Run ``work`` in children to its end; return the s that it took at least."""
    took = []
    for _ in range(times):
        begin = time.monotonic()
        _, status = os.waitpid(forked(work), 0)
        assert os.WIFEXITED(status)
        assert os.WEXITSTATUS(status) == 0
        took.append(time.monotonic() - begin)
    return min(took)


def killed(work: Callable[[], None], delay: float) -> bool:
    """Run ``work`` in a child and kill it; return whether it was still at it."""
    pid = forked(work)
    time.sleep(delay)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the child failed by itself"
    return os.WIFSIGNALED(status)


class Build:
    """An engine of ONNX Runtime is built; every other time an older one is there."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "build"
        self.foreign = Foreign(self.root, folder / "beside build")
        self.cache = EngineCache(self.root, lock_timeout=10.0)
        self.seconds = finished(self.work, 3)
        (self.artifact,) = self.root.glob("xfeat-*/engine.onnx")
        self.whole = hashlib.sha256(self.artifact.read_bytes()).hexdigest()
        self.gate = EngineGate()

    def _runtime(self, policy: str = "build_if_needed") -> Any:
        return create_runtime("onnxruntime", cache=self.cache, policy=policy)

    def work(self) -> None:
        self._runtime("rebuild").compile_engine(zoo.resolve("xfeat"), CONFIG)

    def check(self, number: int) -> None:
        machine = self._runtime().running_machine(CONFIG)
        found = self.gate.check(self.artifact, machine, CONFIG)
        if not found.accepted:
            assert found.reasons == (reasons.MISSING_ARTIFACT,)
        else:
            data = self.gate.require(self.artifact, machine, CONFIG).data
            assert hashlib.sha256(data).hexdigest() == self.whole
        if number % 10 == 0:  # whatever was left, the next start has its engine
            finished(lambda: self._runtime().compile_engine(zoo.resolve("xfeat"), CONFIG))
            assert self.gate.check(self.artifact, machine, CONFIG).accepted
        if number % 2:
            prune(self.cache, max_bytes=0)


class Cache:
    """Engines are found, kept, pruned and built again in a cache that holds several."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "cache"
        self.foreign = Foreign(self.root, folder / "beside cache")
        self.cache = EngineCache(self.root, lock_timeout=10.0)
        self.seconds = finished(self.work, 3)

    def work(self) -> None:
        runtime = create_runtime("onnxruntime", cache=self.cache)
        for keypoints in (20, 21):
            config = BuildConfig(**{**vars(CONFIG), "max_keypoints": keypoints})
            entry = runtime.compile_engine(zoo.resolve("xfeat"), config)
            if keypoints == 20:
                self.cache.keep(entry.artifact)
            prune(self.cache, max_bytes=0)

    def check(self, number: int) -> None:
        machine = create_runtime("onnxruntime", cache=self.cache).running_machine(CONFIG)
        for artifact in self.root.glob("xfeat-*/engine.onnx"):
            found = EngineGate().check(artifact, machine)
            assert found.accepted, found.reasons
        if number % 10 == 0:
            finished(self.work)
            assert len(list(self.root.glob("xfeat-*/engine.onnx"))) == 1  # the one that is kept
        if number % 3 == 0:
            for prepared in self.root.glob("xfeat-*/prepared"):
                prepared.unlink()
            prune(self.cache, max_bytes=0)


class Map:
    """A map is prepared, and on from where it was stopped."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "map"
        self.foreign = Foreign(self.root, folder / "beside map")
        rng = np.random.default_rng(7)
        ground = np.kron(rng.integers(0, 256, (24, 24), np.uint8), np.ones((9, 9), np.uint8))
        assert cv2.imwrite(str(self.root / "ground.png"), ground)
        chosen = {"runtime": "fake", "max_keypoints": 30, "device": "cpu", "warmup_iterations": 1,
                  "engine_cache_directory": str(self.root / "engines")}  # fmt: skip
        self.settings = engine_settings(Settings.from_mapping(chosen), 64)
        self.source = Source(self.root / "ground.png", gsd=1.0, origin=(47.0, 8.0))
        self.path = self.root / "town.map"
        self.seconds = finished(self.work)
        store = MapStore(self.path)
        self.whole, self.tiles = store.sha256, store.tile_count
        assert self.tiles > 30
        store.close()
        self.path.unlink()
        self.seconds = min(self.seconds, finished(self.work))
        self.path.unlink()

    def work(self) -> None:
        info = describe_map(self.source, self.settings, (1.0,), 0.5, "none")
        prepare(self.source, self.path, info, self.settings)

    def check(self, number: int) -> None:
        done = self._read()
        if number % 10 == 0:  # it goes on from wherever it was stopped
            finished(self.work)
            done = self._read()
            assert done
        if done:
            self.path.unlink()

    def _read(self) -> bool:
        """Whether the map is finished; then it is the right one."""
        if not self.path.exists():
            return False
        try:
            store = MapStore(self.path)
        except MapError as error:
            journal = self.path.with_name(self.path.name + "-journal")
            begun = self.path.stat().st_size == 0 or journal.exists()  # the next one goes on
            if "is not finished" not in str(error) and not begun:
                raise
            return False
        assert store.sha256 == self.whole
        assert len(list(store.verify())) == self.tiles
        store.close()
        return True


class Sign:
    """Keys are made and an engine is signed with one of two keys."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "sign"
        self.foreign = Foreign(self.root, folder / "beside sign")
        self.cache = EngineCache(self.root / "engines")
        for name in ("one", "two"):
            signing.generate_keys(self.root / name, self.root / f"{name}.pub")
        self.keys = [signing.load_private_key(self.root / name) for name in ("one", "two")]

        def make() -> None:
            create_runtime("onnxruntime", cache=self.cache).compile_engine(
                zoo.resolve("xfeat"), CONFIG
            )

        finished(make)
        (self.artifact,) = self.cache.root.glob("xfeat-*/engine.onnx")
        signing.sign(self.artifact, self.keys[0])
        self.seconds = 0.05
        self.made = 0

    def work(self) -> None:
        for number in range(10_000):
            signing.sign(self.artifact, self.keys[number % 2])
            new = self.root / f"new{number}"
            signing.generate_keys(new, new.with_suffix(".pub"))

    def check(self, number: int) -> None:
        machine = create_runtime("onnxruntime", cache=self.cache).running_machine(CONFIG)
        accepted = [
            EngineGate(require_signature=True, public_key=self.root / f"{name}.pub")
            .check(self.artifact, machine, CONFIG).accepted
            for name in ("one", "two")
        ]  # fmt: skip
        assert sorted(accepted) == [False, True]  # signed by the one or the other, never by none
        for file in self.root.glob("new*"):
            if file.suffix == ".pub":
                signing.load_public_key(file)
            else:
                signing.load_private_key(file)
                assert file.stat().st_mode & 0o077 == 0
            file.unlink()
            self.made += 1


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_killed_at_any_moment_of_build_cache_map_and_signing(tmp_path: Path) -> None:
    """In a process of its own: one that has threads, as pytest's may, must not fork."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, __file__, str(tmp_path)]
    subprocess.run(command, check=True, timeout=5400, env=environment)


def kill_everywhere(tmp_path: Path) -> None:
    """Kill each kind of work in turn, until so many kills struck; look after each."""
    rng, begin = random.Random(16), time.monotonic()
    kinds = [make(tmp_path) for make in (Build, Cache, Map, Sign)]
    struck, tried = [0] * len(kinds), [0] * len(kinds)

    def say() -> None:
        print(
            f"{sum(struck)} kill -9 in {(time.monotonic() - begin) / 60:.1f} min, in the middle of "
            + ", ".join(
                f"{type(k).__name__.lower()} {n}" for k, n in zip(kinds, struck, strict=True)
            )
            + ": 0 poisoned, 0 foreign files touched",
            flush=True,
        )

    print()
    while sum(struck) < KILLS:
        for index, kind in enumerate(kinds):
            tried[index] += 1
            hit = killed(kind.work, rng.uniform(0.0, kind.seconds))
            struck[index] += hit
            if not hit:  # the computer has become faster than it was measured
                kind.seconds *= 0.97
            kind.check(tried[index])
            assert kind.foreign.touched() == []
        if tried[0] % 10 == 0:
            say()
    say()
    for kind, hit, times in zip(kinds, struck, tried, strict=True):
        assert hit > times // 3, "the moments are not spread over the work"
        if hasattr(kind, "cache"):
            prune(kind.cache)
            assert not [p for mark in (STAGING, RETIRED) for p in kind.cache.root.glob(f"{mark}*")
                        if p.name != ".staging-mine"]  # fmt: skip
        assert kind.foreign.touched() == []


if __name__ == "__main__":
    cv2.setNumThreads(1)
    kill_everywhere(Path(sys.argv[1]))

"""kill -9 at random moments of a build: nothing wrong is accepted, nothing blocks the next one."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from gps_denied_inference.engines import reasons
from gps_denied_inference.engines.cache import EngineCache, EngineRecipe
from gps_denied_inference.engines.gate import EngineGate
from gps_denied_inference.engines.layout import RETIRED, STAGING
from gps_denied_inference.engines.maintenance import prune
from gps_denied_inference.runtimes.contract import BuildConfig, Model, Progress
from gps_denied_inference.runtimes.specs import engine_tensors

MODEL = Model("xfeat", "xfeat", "extractor", 64)
CONFIG = BuildConfig(height=64, width=96, max_keypoints=50)
KILLS = 100
PIECES = 16
PIECE = 4096


def build(path: Path, report: Progress) -> object:
    """Write one piece after the other, all of the same random byte: a mixture would show."""
    mark = os.urandom(1)
    with path.open("wb", buffering=0) as stream:
        for index in range(PIECES):
            stream.write(mark * PIECE)
            report(index / PIECES, "building")
    return engine_tensors(MODEL, CONFIG)


RECIPE = EngineRecipe("test", "1", "", "cpu", "fp32", ".bin", build)  # type: ignore[arg-type]


def child(cache: EngineCache, ready: int) -> None:
    """Build the same engine again and again until killed."""
    os.write(ready, b"x")
    while True:
        cache.obtain(MODEL, CONFIG, RECIPE, policy="rebuild")


def kill_after(cache: EngineCache, delay: float) -> None:
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            child(cache, theirs)
        finally:
            os._exit(1)
    try:
        assert os.read(ours, 1) == b"x"
        time.sleep(delay)  # the random moment itself
    finally:
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        os.close(ours)
        os.close(theirs)
    assert os.WIFSIGNALED(status), "the child ended by itself"


@pytest.mark.slow
def test_killed_builds(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path, lock_timeout=5.0)
    gate = EngineGate()
    started = time.perf_counter()
    for _ in range(5):
        artifact = cache.obtain(MODEL, CONFIG, RECIPE, policy="rebuild").artifact
    duration = (time.perf_counter() - started) / 5
    chance = random.Random(9)
    interrupted = accepted = 0
    for number in range(KILLS):
        if number % 2:  # every other build has no older engine to replace
            prune(cache, max_bytes=0)
        kill_after(cache, chance.uniform(0, 2 * duration))
        interrupted += any(tmp_path.glob(f"{STAGING}*"))
        found = gate.check(artifact, RECIPE.machine, CONFIG)
        if found.accepted:
            accepted += 1
            data = gate.require(artifact, RECIPE.machine, CONFIG).data
            assert data == data[:1] * (PIECES * PIECE)
        else:
            assert found.reasons == (reasons.MISSING_ARTIFACT,)
        entry = cache.obtain(MODEL, CONFIG, RECIPE)
        assert gate.check(entry.artifact, RECIPE.machine, CONFIG).accepted
    # The moments were spread over the build, or this test showed nothing.
    assert interrupted >= KILLS // 5
    assert accepted >= KILLS // 5
    prune(cache)
    assert not [*tmp_path.glob(f"{STAGING}*"), *tmp_path.glob(f"{RETIRED}*")]

"""numpy's threads stay out of the runtime's way wherever a session is open, scripts included."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROBE = """
import json, sys
import numpy, threadpoolctl
from gps_denied_inference.session import InferenceSession
from gps_denied_inference.settings import Settings

def threads():
    return [row["num_threads"] for row in threadpoolctl.threadpool_info()
            if row["user_api"] == "blas"]

small = dict(image_width=64, image_height=64, max_keypoints=10, engine_cache_directory=sys.argv[1])
sessions = [InferenceSession(Settings(runtime="fake", **small)) for _ in range(2)]
seen = [threads()]
for step in (sessions[0].open, sessions[0].close, sessions[0].open, sessions[0].close):
    step()
    seen.append(threads())
print(json.dumps(seen))
"""


def blas_threads(folder: Path, **environment: str) -> list[list[int]]:
    """Return the threads of numpy before, while and after a session is open, twice."""
    env = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(folder)],
        capture_output=True,
        text=True,
        check=True,
        env=env | {"PYTHONPATH": str(Path(__file__).parents[2])} | environment,
    )
    found: list[list[int]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="on one core there is one thread anyway")
def test_numpy_has_one_thread_while_a_session_is_open(tmp_path: Path) -> None:
    before, during, after, again, last = blas_threads(tmp_path)
    assert before, "numpy without a BLAS that threadpoolctl knows"
    assert min(before) > 1
    assert set(during) == set(again) == {1}
    assert after == last == before


def test_what_the_user_asked_for_stays(tmp_path: Path) -> None:
    assert {n for row in blas_threads(tmp_path, OPENBLAS_NUM_THREADS="2") for n in row} == {2}

"""Threads of numpy and OpenCV stay out of the runtime's way wherever a session is open."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROBE = """
import json, sys
import cv2, numpy, threadpoolctl
from gps_denied_inference.session import InferenceSession
from gps_denied_inference.settings import Settings

def threads():
    if sys.argv[2] == "opencv":
        return [cv2.getNumThreads()]
    return [row["num_threads"] for row in threadpoolctl.threadpool_info()
            if row["user_api"] == "blas"]

small = dict(image_width=64, image_height=64, max_keypoints=10, engine_cache_directory=sys.argv[1])
sessions = [InferenceSession(Settings(runtime="fake", **small)) for _ in range(2)]
seen = [threads()]
one, two = sessions
for step in (one.open, two.open, one.close, two.close, one.open, one.close):
    step()
    seen.append(threads())
print(json.dumps(seen))
"""


def threads(library: str, folder: Path, **environment: str) -> list[list[int]]:
    """Return a library's threads before, while and after sessions are open."""
    env = {k: v for k, v in os.environ.items() if not k.endswith(("_NUM_THREADS", "_THREADS_NUM"))}
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(folder), library],
        capture_output=True,
        text=True,
        check=True,
        env=env | {"PYTHONPATH": str(Path(__file__).parents[2])} | environment,
    )
    found: list[list[int]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="on one core there is one thread anyway")
@pytest.mark.parametrize("library", ["numpy", "opencv"])
def test_one_thread_while_a_session_is_open(library: str, tmp_path: Path) -> None:
    before, one, both, other, none, again, last = threads(library, tmp_path)
    assert before, "numpy without a BLAS that threadpoolctl knows"
    assert min(before) > 1
    assert set(one) == set(both) == set(other) == set(again) == {1}
    assert none == last == before


@pytest.mark.parametrize(
    ("library", "name"), [("numpy", "OPENBLAS_NUM_THREADS"), ("opencv", "OPENCV_FOR_THREADS_NUM")]
)
def test_what_the_user_asked_for_stays(library: str, name: str, tmp_path: Path) -> None:
    assert {n for row in threads(library, tmp_path, **{name: "2"}) for n in row} == {2}

"""numpy's threads stay out of the runtime's way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROBE = """
import os
from gps_denied_inference.threads import leave_cores_to_the_runtime
if {call}:
    leave_cores_to_the_runtime()
import numpy
a = numpy.ones((500, 500), numpy.float32)
a @ a
print(len(os.listdir("/proc/self/task")))
"""


def threads(call: bool, **environment: str) -> int:
    env = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(call=call)],
        capture_output=True,
        text=True,
        check=True,
        env=env | {"PYTHONPATH": str(Path(__file__).parents[2])} | environment,
    )
    return int(done.stdout)


@pytest.mark.skipif(
    not Path("/proc/self/task").exists() or (os.cpu_count() or 1) < 2,
    reason="counts threads in Linux's /proc, on two cores or more",
)
def test_openblas_starts_no_threads_unless_the_user_says_so() -> None:
    assert threads(call=False) > 1
    assert threads(call=True) == 1
    assert threads(call=True, OPENBLAS_NUM_THREADS="2") == 2

"""ONNX Runtime's threads leave the cores to whoever comes after the forward pass."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from gps_denied_inference.engines.cache import EngineCache
from gps_denied_inference.models import zoo
from gps_denied_inference.runtimes.contract import BuildConfig
from gps_denied_inference.runtimes.onnx_runtime.runtime import OrtRuntime


def test_they_sleep_once_the_pass_is_over(tmp_path: Path) -> None:
    runtime = OrtRuntime(cache=EngineCache(tmp_path))
    config = BuildConfig(height=256, width=320, max_keypoints=300, threads=2)
    handle = runtime.deserialize_engine(runtime.compile_engine(zoo.resolve("xfeat"), config))
    image = np.zeros((256, 320, 1), np.uint8)
    busy = []
    for _ in range(10):
        runtime.infer(handle, {"image": image})
        started = time.process_time()
        time.sleep(0.05)  # not waited for: what this process burns meanwhile is the measurement
        busy.append(time.process_time() - started)
    runtime.release_engine(handle)
    # A thread that spins takes all of the 50 ms.
    assert np.median(busy) < 0.01

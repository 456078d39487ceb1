"""Interleaved timing: every contestant takes its turn on every frame, so all meet the same machine.

A pause before each turn lets the threads of the contestant before go to sleep; they would
otherwise spin on the cores that the next one needs. OpenMP's threads may spin for 0.2 s: with a
pause of 10 ms on two cores, whoever came after PyTorch was measured at nearly twice its time.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gps_denied_inference.runtimes.contract import Progress
from gps_denied_inference.versions import installed_version

Turn = Callable[[int], object]
"""Does one contestant's whole work on the frame of that index."""


@dataclass(frozen=True)
class Timing:
    """Wall-clock times of one contestant, ms."""

    turns: int
    p50: float
    p95: float
    mean: float
    least: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        """Summarise times in s."""
        ms = np.asarray(seconds) * 1e3
        p50, p95 = np.percentile(ms, [50, 95])
        return cls(len(ms), float(p50), float(p95), float(ms.mean()), float(ms.min()))


def race(
    contestants: Mapping[str, Turn],
    frames: int,
    rounds: int,
    *,
    warmup: int = 3,
    pause: float = 0.25,
    progress: Progress | None = None,
) -> dict[str, Timing]:
    """Let each contestant take its turn on each frame, ``rounds`` times over.

    Args:
        contestants: by name.
        frames: number of frames.
        rounds: passes over all frames.
        warmup: turns of each that are not measured.
        pause: s, before each turn.
        progress: called with the share done.
    """
    names = list(contestants)
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(warmup):
        for name in names:
            contestants[name](0)
    total = rounds * frames
    for step in range(total):
        # Rotate who comes first: the first after a change of frame meets cold caches.
        for offset in range(len(names)):
            name = names[(step + offset) % len(names)]
            time.sleep(pause)
            start = time.perf_counter()
            contestants[name](step % frames)
            times[name].append(time.perf_counter() - start)
        if progress:
            progress((step + 1) / total, "measuring")
    return {name: Timing.of(values) for name, values in times.items()}


def ratio(timings: Mapping[str, Timing], slow: str, fast: str) -> dict[str, float]:
    """Return how many times longer ``slow`` takes than ``fast``, by median and by least time."""
    return {
        "p50": timings[slow].p50 / timings[fast].p50,
        "least": timings[slow].least / timings[fast].least,
    }


def as_report(timings: Mapping[str, Timing]) -> dict[str, dict[str, float]]:
    """Return the timings as plain data, ms."""
    return {name: asdict(timing) for name, timing in timings.items()}


def machine() -> dict[str, Any]:
    """Return what the figures depend on: processor, cores, load, versions."""

    from gps_denied_inference.runtimes.gpus import survey
    from gps_denied_inference.runtimes.onnx_runtime.session import library_version

    gpus = survey().gpus
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average_1min": os.getloadavg()[0],
        "python": platform.python_version(),
        "torch": installed_version("torch") or "absent",
        "onnxruntime": library_version(),
        "gpu": gpus[0].name if gpus else None,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if "model name" in line]
    except OSError:
        names = []
    return names[0] if names else platform.machine()

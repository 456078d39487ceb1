"""A runtime without any vendor library, for tests and for trying out the node.

It keeps the whole protocol, engine cache and gate included, and its answers are real functions of
the image: one keypoint per grid cell at its brightest pixel, described by the pixels around it.
Two frames of the same scene therefore match, a dark frame gives no keypoints, and equal frames
give equal answers. It is no substitute for a network.
"""

from __future__ import annotations

import json
import math
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gps_denied_inference.engines.gate import RunningMachine
from gps_denied_inference.engines.manifest import EngineManifest, engine_config
from gps_denied_inference.errors import (
    EngineBuildError,
    EngineLoadError,
    GpsDeniedInferenceError,
    InferenceError,
)
from gps_denied_inference.runtimes.checks import check_config
from gps_denied_inference.runtimes.contract import (
    BuildConfig,
    EngineCacheEntry,
    EngineHandle,
    Model,
    Progress,
    Readback,
)
from gps_denied_inference.runtimes.engine_runtime import EngineRuntime, Specs
from gps_denied_inference.runtimes.machine import Availability, Machine
from gps_denied_inference.runtimes.specs import engine_tensors

_VERSION = "1"
_MATCH_COSINE = 0.8
"""Matches of the fake matcher are mutual nearest neighbours at least this much alike."""


def probe(machine: Machine, device: str, index: int) -> Availability:
    """Return that it works: it needs nothing."""
    return Availability(True, "built in")


class FakeRuntime(EngineRuntime):
    """Runtime ``"fake"``.

    Args:
        latency: s that every forward pass takes at least.
        build_time: s that every build takes at least.
        shared: ``cache``, ``gate`` and the others of :class:`EngineRuntime`.

    Attributes:
        failures: exceptions that the next calls of ``infer`` raise, first in, first out.
        live: number of handles given out and not released.
    """

    label = "fake"

    def __init__(self, *, latency: float = 0.0, build_time: float = 0.0, **shared: Any) -> None:
        super().__init__(**shared)
        self.latency = latency
        self._build_time = build_time
        self.failures: list[Exception] = []
        self.live = 0

    def running_machine(self, config: BuildConfig) -> RunningMachine:
        """Return what this runtime would run an engine on."""
        return RunningMachine("fake", _VERSION, "", config.device, config.precision)

    def compile_engine(
        self, model: Model, config: BuildConfig, progress: Progress | None = None
    ) -> EngineCacheEntry:
        """See ``InferenceRuntime.compile_engine``."""
        check_config(config)
        machine = self.running_machine(config)

        def build(path: Path, report: Progress) -> Specs:
            specs = engine_tensors(model, config)
            if specs is None:
                raise EngineBuildError(f"the fake runtime knows no '{model.kind}' networks")
            for step in range(4):
                time.sleep(self._build_time / 4)
                report(step / 4, "building a fake engine")
            text = json.dumps({"kind": model.kind, "config": engine_config(config)})
            path.write_text(text, encoding="utf-8")
            return specs

        return self._obtain(model, config, machine, ".json", build, progress)

    def deserialize_engine(self, entry: EngineCacheEntry) -> EngineHandle:
        """See ``InferenceRuntime.deserialize_engine``."""
        started = time.perf_counter()
        machine = self.running_machine(entry.config)
        entry, verified = self._gate.admit(entry, machine)
        try:
            kind = json.loads(verified.data)["kind"]
        except (ValueError, KeyError, TypeError) as error:
            raise EngineLoadError(f"{entry.artifact} is no fake engine: {error}") from error
        readback = Readback(
            "fake", _VERSION, "FakeProvider", machine.device_name, machine.precision
        )
        engine = _FakeEngine(self, kind, verified.manifest, entry.config.detection_threshold)
        self.live += 1
        handle = EngineHandle(
            self, engine, engine.inputs, engine.outputs, readback, entry, load_time=0.0
        )
        for _ in range(entry.config.warmup_iterations):
            engine.answer([spec.zeros() for spec in engine.inputs])
        handle.load_time = time.perf_counter() - started
        return handle

    def _explain(self, handle: EngineHandle, error: Exception) -> GpsDeniedInferenceError:
        return InferenceError(f"{handle!r} failed: {error}")


class _FakeEngine:
    def __init__(
        self, runtime: FakeRuntime, kind: str, manifest: EngineManifest, threshold: float
    ) -> None:
        self._runtime = runtime
        self.kind = kind
        self.inputs = manifest.inputs
        self.outputs = manifest.outputs
        self._several = manifest.build_config().batch > 1
        self.threshold = threshold
        self.lock = threading.Lock()

    def run(self, arrays: list[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Answer, fail or take its time, as the runtime was told to."""
        started = time.perf_counter()
        if self._runtime.failures:
            raise self._runtime.failures.pop(0)
        outputs = self.answer(arrays)
        rest = self._runtime.latency - (time.perf_counter() - started)
        if rest > 0:
            time.sleep(rest)
        return outputs

    def close(self) -> None:
        self._runtime.live -= 1

    def answer(self, arrays: list[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        one = self._match if self.kind == "matcher" else self._extract
        if not self._several:
            return one(arrays)
        answers = [one(list(each)) for each in zip(*arrays, strict=True)]
        return [np.stack(parts) for parts in zip(*answers, strict=True)]

    def _extract(self, arrays: list[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        (image,) = arrays
        limit, dim = self.outputs[2].shape[-2:]
        grey = image.mean(axis=2, dtype=np.float32) / np.float32(255)
        height, width = grey.shape
        rows, columns = _grid(height, width, limit)
        points = np.empty((rows * columns, 2), dtype=np.int64)
        ys = np.linspace(0, height, rows + 1).astype(int)
        xs = np.linspace(0, width, columns + 1).astype(int)
        for row in range(rows):
            for column in range(columns):
                cell = grey[ys[row] : ys[row + 1], xs[column] : xs[column + 1]]
                y, x = divmod(int(cell.argmax()), cell.shape[1])
                points[row * columns + column] = xs[column] + x, ys[row] + y
        scores = grey[points[:, 1], points[:, 0]]
        order = np.argsort(-scores, kind="stable")
        order = order[scores[order] > self.threshold][:limit]
        count = len(order)
        keypoints, described = np.zeros((limit, 2), np.float32), np.zeros((limit, dim), np.float32)
        found = np.zeros(limit, np.float32)
        keypoints[:count], found[:count] = points[order], scores[order]
        described[:count] = _describe(grey, points[order], dim)
        return [keypoints, found, described, np.array([count], np.int32)]

    def _match(self, arrays: list[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        limit = self.outputs[0].shape[-1]
        counts = [int(np.clip(arrays[index][0], 0, limit)) for index in (2, 6)]
        matches = np.full(limit, -1, dtype=np.int32)
        scores = np.zeros(limit, dtype=np.float32)
        if min(counts) > 0:
            cosine = arrays[1][: counts[0]] @ arrays[5][: counts[1]].T
            forth, back = cosine.argmax(axis=1), cosine.argmax(axis=0)
            best = cosine.max(axis=1)
            kept = (back[forth] == np.arange(counts[0])) & (best >= _MATCH_COSINE)
            matches[: counts[0]][kept] = forth[kept]
            scores[: counts[0]][kept] = np.clip(best[kept], 0, 1)
        return [matches, scores]


def _grid(height: int, width: int, limit: int) -> tuple[int, int]:
    """Return rows and columns of about square cells, no more than ``limit`` and no empty ones."""
    rows = min(height, max(1, int(math.sqrt(limit * height / width))))
    columns = min(width, max(1, limit // rows))
    return rows, columns


def _describe(
    grey: npt.NDArray[np.float32], points: npt.NDArray[np.int64], dim: int
) -> npt.NDArray[np.float32]:
    """Return unit vectors of ``dim`` pixels around each point, on a spiral, less their mean."""
    height, width = grey.shape
    turn = np.arange(dim) * 2.399963  # the golden angle spreads the samples evenly
    radius = 1.5 * np.sqrt(np.arange(dim))
    dx, dy = np.rint(radius * np.cos(turn)).astype(int), np.rint(radius * np.sin(turn)).astype(int)
    xs = np.clip(points[:, :1] + dx, 0, width - 1)
    ys = np.clip(points[:, 1:] + dy, 0, height - 1)
    samples = grey[ys, xs]
    samples = samples - samples.mean(axis=1, keepdims=True)
    samples[np.linalg.norm(samples, axis=1) < 1e-6, 0] = 1.0
    return np.asarray(samples / np.linalg.norm(samples, axis=1, keepdims=True), dtype=np.float32)

"""Record the NVML source on a real NVIDIA GPU while it idles, works at full load and cools down.

Run from the repository's root, on a machine with an NVIDIA GPU, PyTorch and nvidia-ml-py::

    PYTHONPATH=. python3 benchmarks/gpu/thermal_under_load.py --json nvml_under_load.json

Writes a summary (what was seen in each phase, what one reading costs) with every sample in it, and
with ``--record`` also a recording that ``gdi thermal --replay`` and the node play back. Fails where
no load is seen by the source: a recording without load would show nothing.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch

from gps_denied_inference.thermal.monitor import ThermalMonitor
from gps_denied_inference.thermal.nvml_source import NvmlSource
from gps_denied_inference.thermal.replay import ThermalRecorder
from gps_denied_inference.thermal.state import ThermalState


def load(stop: threading.Event, size: int = 8192) -> int:
    """Multiply FP16 matrices (size, size) until ``stop`` is set; return how many products."""
    a = torch.randn(size, size, device="cuda", dtype=torch.float16)
    b = torch.randn(size, size, device="cuda", dtype=torch.float16)
    products = 0
    while not stop.is_set():
        for _ in range(20):
            torch.matmul(a, b)
        torch.cuda.synchronize()
        products += 20
    return products


def reading_cost(source: NvmlSource, count: int = 200) -> dict[str, float]:
    """Return p50, p95 and the longest of ``count`` readings, in seconds."""
    costs = []
    for _ in range(count):
        begin = time.perf_counter()
        source.read()
        costs.append(time.perf_counter() - begin)
    costs.sort()
    return {"p50_s": costs[count // 2], "p95_s": costs[int(count * 0.95)], "max_s": costs[-1]}


def watch(
    monitor: ThermalMonitor, recorder: ThermalRecorder | None, phase: str, seconds: float
) -> list[dict[str, Any]]:
    """Collect what the monitor says for ``seconds``."""
    samples = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        monitor.wait_fresh(2 * monitor.period)
        state: ThermalState = monitor.latest()
        if recorder is not None:
            recorder.write(state)
        samples.append({"phase": phase, "t": time.monotonic(), "state": state.to_dict()})
    return samples


def summary(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what was seen: temperatures in degree Celsius, W, Hz, and names."""
    states = [ThermalState.from_dict(sample["state"]) for sample in samples]
    temperatures = [state.sensors[0].temperature for state in states if state.sensors]
    return {
        "samples": len(states),
        "temperature_first": temperatures[0] if temperatures else None,
        "temperature_max": max(temperatures, default=None),
        "power_median": statistics.median(state.power for state in states),
        "power_max": max(state.power for state in states),
        "clock_min": min(state.clock for state in states),
        "clock_max": max(state.clock for state in states),
        "load_median": statistics.median(state.load for state in states),
        "levels": sorted({state.level.name for state in states}),
        "throttle_bits": sorted({hex(state.throttle_bits) for state in states}),
        "causes": sorted({str(int(state.throttle_causes)) for state in states}),
        "sample_age_max": max(state.sample_age for state in states),
    }


def shortened(sample: dict[str, Any], start: float) -> dict[str, Any]:
    """Return what changes from sample to sample, with ``t`` in s since ``start``."""
    state = sample["state"]
    return {
        "phase": sample["phase"],
        "t": round(sample["t"] - start, 3),
        "temperatures": [sensor["temperature"] for sensor in state["sensors"]],
        **{key: state[key] for key in ("level", "power", "clock", "load", "throttle_bits")},
    }


def main() -> int:
    """Record the three phases; return 0 where the load was seen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, metavar="FILE")
    parser.add_argument("--record", type=Path, metavar="FILE")
    parser.add_argument("--idle", type=float, default=5.0, help="s before and after (default: 5)")
    parser.add_argument("--load", type=float, default=20.0, help="s of load (default: 20)")
    parser.add_argument("--period", type=float, default=0.5, help="s between readings")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("no NVIDIA GPU that PyTorch can use on this machine", file=sys.stderr)
        return 2
    torch.cuda.init()

    cost = reading_cost(NvmlSource())
    recorder = ThermalRecorder(args.record, "nvml") if args.record else None
    stop = threading.Event()
    done: list[int] = []
    worker = threading.Thread(target=lambda: done.append(load(stop)), daemon=True)
    with ThermalMonitor(NvmlSource(), args.period) as monitor:
        monitor.wait_fresh(5.0)
        samples = watch(monitor, recorder, "idle", args.idle)
        worker.start()
        samples += watch(monitor, recorder, "load", args.load)
        loaded_cost = reading_cost(NvmlSource())
        stop.set()
        worker.join(30)
        samples += watch(monitor, recorder, "cool_down", args.idle)
    if recorder is not None:
        recorder.close()

    phases = {
        phase: summary([sample for sample in samples if sample["phase"] == phase])
        for phase in ("idle", "load", "cool_down")
    }
    start = samples[0]["t"]
    result = {
        "gpu": torch.cuda.get_device_name(0),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "idle_s": args.idle,
        "load_s": args.load,
        "period_s": args.period,
        "matrix_products_8192_fp16": sum(done),
        "reading_cost_idle": cost,
        "reading_cost_under_load": loaded_cost,
        "phases": phases,
        "samples": [shortened(sample, start) for sample in samples],
    }
    args.json.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
    print(json.dumps({key: result[key] for key in result if key != "samples"}, indent=1))
    seen = phases["load"]["power_max"] > 1.2 * phases["idle"]["power_median"]
    if not seen:
        print("the source did not see the load", file=sys.stderr)
    return 0 if seen else 1


if __name__ == "__main__":
    sys.exit(main())

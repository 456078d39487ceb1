"""What TensorRT for RTX says of a GPU that it does not run on; a part of ``bench_h100.py``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from gps_denied_inference.engines.cache import EngineCache
from gps_denied_inference.engines.gate import EngineGate
from gps_denied_inference.errors import GpsDeniedInferenceError, UnsupportedDeviceError
from gps_denied_inference.runtimes import create_runtime
from gps_denied_inference.runtimes.contract import BuildConfig, Model
from gps_denied_inference.runtimes.tensorrt.probe import find_tensorrt


class OpenGate(EngineGate):
    """Lets an engine for another GPU through, to see what the library does with it."""

    def require(self, artifact: Path, machine: Any, config: BuildConfig | None = None) -> Any:
        capability = (config.options if config else {}).get("compute_capability", "")
        name = f"GPU of compute capability {capability}"
        return super().require(
            artifact, replace(machine, compute_capability=capability, device_name=name), config
        )


def try_rtx(model: Model, cache: Path) -> dict[str, str]:
    """Build a TensorRT for RTX engine for 8.9 and try to load it here, gate open and gate shut."""
    if find_tensorrt(library="tensorrt_rtx") is None:
        return {"skipped": "tensorrt_rtx is not installed"}
    config = BuildConfig(precision="fp16", device="cuda", options={"compute_capability": "8.9"})
    results = {}
    for name, gate in (("gate", EngineGate()), ("library", OpenGate())):
        runtime = create_runtime(
            "tensorrt", library="tensorrt_rtx", cache=EngineCache(cache), gate=gate
        )
        try:
            runtime.deserialize_engine(runtime.compile_engine(model, config))
            results[name] = "loaded"
        except UnsupportedDeviceError as error:
            results[name] = f"UnsupportedDeviceError: {error}; cause: {error.__cause__!r}"[:900]
        except GpsDeniedInferenceError as error:
            results[name] = f"{type(error).__name__}: {error}"[:900]
    return results

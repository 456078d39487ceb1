"""Whether TensorRT or TensorRT for RTX works on this machine. Imports them only when asked."""

from __future__ import annotations

import importlib
from types import ModuleType

from gps_denied_inference.runtimes.machine import INSTALL, Availability, Importer, Machine

TENSORRT_LIBRARIES = ("tensorrt", "tensorrt_rtx")
"""In the order in which they are tried."""

RTX_COMPUTE_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
"""GPUs that TensorRT for RTX runs on."""

CUDA_MODULES = ("cuda.bindings.runtime", "cuda.cudart")
"""New and old place in cuda-python."""
_INSTALL = INSTALL + "tensorrt cuda-python"


def probe(machine: Machine, device: str, index: int) -> Availability:
    """Return whether ``tensorrt`` or ``tensorrt_rtx`` can run engines on GPU ``index``."""
    # The GPU is asked for first: without one the large library is not even imported.
    missing = machine.without_gpu(index)
    gpu = machine.gpus.get(index)
    if missing or gpu is None:
        return missing or Availability(False)
    found = find_tensorrt(machine.load)
    if found is None:
        reason = "neither tensorrt nor tensorrt_rtx can be imported"
        return Availability(False, "", reason, _INSTALL)
    version = f"{found.__name__} {found.__version__}"
    if found.__name__ == "tensorrt_rtx" and gpu.compute_capability not in RTX_COMPUTE_CAPABILITIES:
        reason = (
            f"TensorRT for RTX does not run on {gpu.name} (compute capability"
            f" {gpu.compute_capability}; it takes {', '.join(RTX_COMPUTE_CAPABILITIES)})"
        )
        return Availability(False, version, reason, _INSTALL)
    for name in CUDA_MODULES:
        try:
            machine.load(name)
        except (ImportError, OSError) as error:
            reason = f"cuda-python is missing ({error})"
        else:
            return Availability(True, version)
    return Availability(False, version, reason, INSTALL + "cuda-python")


def find_tensorrt(
    import_module: Importer = importlib.import_module, library: str = "auto"
) -> ModuleType | None:
    """Return ``tensorrt``, else ``tensorrt_rtx``, else None; or the one named, or None."""
    for name in TENSORRT_LIBRARIES if library == "auto" else (library,):
        try:
            module = import_module(name)
        except (ImportError, OSError):
            continue
        # Type stubs leave a folder of the same name, which imports as an empty package.
        if hasattr(module, "Builder"):
            return module
    return None

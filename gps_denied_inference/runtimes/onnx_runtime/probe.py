"""Whether ONNX Runtime works on this machine. Imports the library only when asked."""

from __future__ import annotations

from gps_denied_inference.runtimes.machine import INSTALL, Availability, Machine

_INSTALL = INSTALL + "onnxruntime"
_INSTALL_GPU = "python3 -m pip uninstall onnxruntime && " + INSTALL + "onnxruntime-gpu[cuda,cudnn]"


def probe(machine: Machine, device: str, index: int) -> Availability:
    """Return whether ONNX Runtime works on ``"cpu"`` or on ``"cuda"`` GPU ``index``."""
    try:
        library = machine.load("onnxruntime")
        version = str(library.__version__)
        providers = list(library.get_available_providers())
    except (ImportError, AttributeError, OSError) as error:
        return Availability(False, "", f"onnxruntime cannot be imported ({error})", _INSTALL)
    if device == "cpu":
        return Availability(True, version)
    missing = machine.without_gpu(index, version)
    if missing:
        return missing
    if "CUDAExecutionProvider" not in providers:
        reason = f"onnxruntime {version} was built without its CUDA provider"
        return Availability(False, version, reason, _INSTALL_GPU)
    return Availability(True, version)

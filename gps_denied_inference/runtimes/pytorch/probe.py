"""Whether PyTorch works on this machine. Imports it only when asked."""

from __future__ import annotations

from gps_denied_inference.runtimes.machine import INSTALL, Availability, Machine


def probe(machine: Machine, device: str, index: int) -> Availability:
    """Return whether PyTorch works on ``"cpu"`` or on ``"cuda"`` GPU ``index``."""
    try:
        torch = machine.load("torch")
        version = str(torch.__version__)
    except (ImportError, AttributeError, OSError) as error:
        return Availability(False, "", f"torch cannot be imported ({error})", INSTALL + "torch")
    if device == "cpu":
        return Availability(True, version)
    missing = machine.without_gpu(index, version)
    if missing:
        return missing
    if not torch.cuda.is_available():
        reason = f"PyTorch {version} sees no GPU: it is a CPU build or too new a CUDA"
        remedy = "install a CUDA build of PyTorch: https://pytorch.org/get-started"
        return Availability(False, version, reason, remedy)
    return Availability(True, version)

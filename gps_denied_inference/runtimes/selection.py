"""Which runtime, device and precision run, and why not the others.

``auto`` takes the first of this list that works on this machine:

1. ``tensorrt`` on the GPU: fastest once its engine is built;
2. ``onnxruntime`` on the GPU, CUDA provider: no build step, nearly as fast;
3. ``onnxruntime`` on the CPU.

PyTorch is never chosen by ``auto``: it is the reference that the others are compared with, needs
the weights besides the graph, and takes the most memory.

Whatever is named explicitly is taken or refused, never replaced: naming the device leaves ``auto``
only the runtimes of that device, naming the runtime leaves it none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gps_denied_inference.errors import (
    InvalidParameterError,
    RuntimeUnavailableError,
    UnknownNameError,
)
from gps_denied_inference.runtimes.availability import Availability, Machine
from gps_denied_inference.runtimes.checks import parse_device

AUTO = "auto"
PRECISIONS = ("fp32", "fp16")

_FIXED_PRECISION = {"pytorch_fp16": "fp16", "pytorch_fp32": "fp32"}
_CPU_ONLY = ("pytorch_fp32", "fake")
_GPU_ONLY = ("tensorrt", "pytorch_fp16")


@dataclass(frozen=True)
class Selection:
    """What was chosen.

    Attributes:
        runtime: registry name.
        device: ``"cpu"`` or ``"cuda:N"``.
        precision: ``"fp32"`` or ``"fp16"``.
        passed_over: earlier choices with the reason against each, in order; empty unless
            something was left to ``auto``.
    """

    runtime: str
    device: str
    precision: str
    passed_over: tuple[tuple[str, str], ...] = ()


def select(
    runtime: str = AUTO,
    device: str = AUTO,
    precision: str = AUTO,
    *,
    precisions: Sequence[str] = PRECISIONS,
    machine: Machine | None = None,
) -> Selection:
    """Choose.

    Args:
        runtime: a registry name or ``"auto"``.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        precision: ``"auto"`` (fp16 on a GPU, fp32 on a CPU), ``"fp32"`` or ``"fp16"``.
        precisions: what the model runs in: ``"auto"`` takes fp16 only if it is among them.
        machine: what to choose for, default this one.

    Raises:
        RuntimeUnavailableError: what is named, or everything that ``auto`` may take, does not
            work here; names each reason and, in ``hint``, what mends the first.
        UnknownNameError: no such runtime.
        InvalidParameterError: no such device or precision, or one that the runtime does not have.
    """
    machine = machine or Machine()
    if precision not in (AUTO, *PRECISIONS):
        raise InvalidParameterError("precision", precision, "'auto', 'fp32' or 'fp16'")
    kind, index = (AUTO, 0) if device == AUTO else parse_device(device)
    candidates = _candidates(runtime, kind)
    fixed = _FIXED_PRECISION.get(runtime)
    if fixed is not None and precision not in (AUTO, fixed):
        raise InvalidParameterError(
            "precision", precision, f"'{fixed}' or 'auto' for runtime '{runtime}'"
        )
    passed_over: list[tuple[str, str]] = []
    remedies: list[str] = []
    for name, place in candidates:
        found = _ask(machine, name, place, index, precision)
        if found.works:
            chosen = precision
            if precision == AUTO:
                chosen = fixed or automatic_precision(place, precisions)
            where = "cpu" if place == "cpu" else f"cuda:{index}"
            return Selection(name, where, chosen, tuple(passed_over))
        passed_over.append((f"{name} ({place})", found.reason))
        remedies.append(found.remedy)
    reasons = "; ".join(f"{name}: {reason}" for name, reason in passed_over)
    raise RuntimeUnavailableError(
        f"no runtime for runtime:={runtime} device:={device} works here: {reasons}", remedies[0]
    )


def automatic_precision(place: str, precisions: Sequence[str]) -> str:
    """Return what ``auto`` means on a ``"cpu"`` or ``"cuda"`` device for a model."""
    return "fp16" if place == "cuda" and "fp16" in precisions else "fp32"


def _candidates(runtime: str, kind: str) -> list[tuple[str, str]]:
    """Return (runtime, "cpu" or "cuda") in the order of trial; never empty."""
    if runtime == AUTO:
        order = [("tensorrt", "cuda"), ("onnxruntime", "cuda"), ("onnxruntime", "cpu")]
    elif runtime in _CPU_ONLY:
        order = [(runtime, "cpu")]
    elif runtime in _GPU_ONLY:
        order = [(runtime, "cuda")]
    elif runtime == "onnxruntime":
        order = [("onnxruntime", "cuda"), ("onnxruntime", "cpu")]
    else:
        known = ("auto", "onnxruntime", *_GPU_ONLY, *_CPU_ONLY)
        raise UnknownNameError("runtime", runtime, known)
    if kind == AUTO:
        return order
    kept = [candidate for candidate in order if candidate[1] == kind]
    if not kept:
        raise InvalidParameterError(
            "device", kind, f"'auto' or '{order[0][1]}' for runtime '{runtime}'"
        )
    return kept


def _ask(machine: Machine, runtime: str, place: str, index: int, precision: str) -> Availability:
    if (runtime, place, precision) == ("onnxruntime", "cpu", "fp16"):
        reason = "ONNX Runtime computes nothing in half precision on the CPU"
        return Availability(False, "", reason, "choose precision:=auto or fp32")
    if runtime == "tensorrt":
        return machine.tensorrt(index)
    if runtime == "onnxruntime":
        return machine.onnxruntime(place, index)
    if runtime == "pytorch_fp16":
        return machine.pytorch_fp16(index)
    if runtime == "pytorch_fp32":
        return machine.pytorch_fp32()
    return Availability(True, "built in")

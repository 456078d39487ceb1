"""Which runtime, device and precision run, and why not the others.

``auto`` takes the first of ``table.AUTO_ORDER`` that works on this machine:

1. ``onnxruntime`` on the GPU, CUDA provider: shown to work on real hardware, no build step;
2. ``tensorrt`` on the GPU, where ONNX Runtime has no CUDA provider, as on a Jetson;
3. ``onnxruntime`` on the CPU.

PyTorch is never chosen by ``auto``: it is the reference that the others are compared with, needs
the weights besides the graph, and takes the most memory. Nor is a runtime of another package.

Whatever is named explicitly is taken or refused, never replaced: naming the device leaves ``auto``
only the runtimes of that device, naming the runtime leaves it none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from gps_denied_inference.errors import InvalidParameterError, RuntimeUnavailableError
from gps_denied_inference.runtimes.checks import parse_device
from gps_denied_inference.runtimes.machine import Availability, Machine
from gps_denied_inference.runtimes.specs import PRECISIONS, AskedPrecision, Precision
from gps_denied_inference.runtimes.table import AUTO_ORDER, RuntimeRow, find

AUTO: Final = "auto"

_WORDS = {"fp16": "half precision", "fp32": "single precision"}
_PLACES = {"cpu": "the CPU", "cuda": "a GPU"}


@dataclass(frozen=True)
class Selection:
    """What was chosen.

    Attributes:
        runtime: name in the table, or the label of one precision (``"pytorch_fp16"``).
        device: ``"cpu"`` or ``"cuda:N"``.
        precision: ``"fp32"`` or ``"fp16"``.
        passed_over: earlier choices with the reason against each, in order; empty unless
            something was left to ``auto``.
    """

    runtime: str
    device: str
    precision: Precision
    passed_over: tuple[tuple[str, str], ...] = ()


def select(
    runtime: str = AUTO,
    device: str = AUTO,
    precision: AskedPrecision = AUTO,
    *,
    precisions: Sequence[Precision] = PRECISIONS,
    machine: Machine | None = None,
) -> Selection:
    """Choose.

    Args:
        runtime: a name of the table or ``"auto"``.
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
    fixed: Precision | Literal[""] = "" if runtime == AUTO else find(runtime)[1]
    if fixed and precision not in (AUTO, fixed):
        raise InvalidParameterError(
            "precision", precision, f"'{fixed}' or 'auto' for runtime '{runtime}'"
        )
    passed_over: list[tuple[str, str]] = []
    remedies: list[str] = []
    for row, place in _candidates(runtime, kind):
        wanted: Precision | Literal[""] = precision if precision != "auto" else fixed
        found = _ask(machine, row, place, index, wanted)
        if found.works:
            chosen = wanted or _automatic(row, place, precisions)
            where = "cpu" if place == "cpu" else f"cuda:{index}"
            return Selection(row.label(chosen), where, chosen, tuple(passed_over))
        passed_over.append((f"{row.label(wanted)} ({place})", found.reason))
        remedies.append(found.remedy)
    reasons = "; ".join(f"{name}: {reason}" for name, reason in passed_over)
    raise RuntimeUnavailableError(
        f"no runtime for runtime:={runtime} device:={device} works here: {reasons}", remedies[0]
    )


def automatic_precision(place: str, precisions: Sequence[Precision]) -> Precision:
    """Return what ``auto`` means on a ``"cpu"`` or ``"cuda"`` device for a model."""
    return "fp16" if place == "cuda" and "fp16" in precisions else "fp32"


def _automatic(row: RuntimeRow, place: str, precisions: Sequence[Precision]) -> Precision:
    """Return what ``auto`` means for a model, as far as the runtime computes in it."""
    best = automatic_precision(place, precisions)
    return best if best in row.precisions[place] else row.precisions[place][0]


def _candidates(runtime: str, kind: str) -> list[tuple[RuntimeRow, str]]:
    """Return (row, "cpu" or "cuda") in the order of trial; never empty."""
    if runtime == AUTO:
        order = [(find(name)[0], place) for name, place in AUTO_ORDER]
    else:
        row, fixed = find(runtime)
        places = [place for place in row.precisions if not fixed or fixed in row.precisions[place]]
        order = [(row, place) for place in places]
    if kind == AUTO:
        return order
    kept = [candidate for candidate in order if candidate[1] == kind]
    if not kept:
        raise InvalidParameterError(
            "device", kind, f"'auto' or '{order[0][1]}' for runtime '{runtime}'"
        )
    return kept


def _ask(machine: Machine, row: RuntimeRow, place: str, index: int, precision: str) -> Availability:
    if precision and precision not in row.precisions[place]:
        has = " or ".join(row.precisions[place])
        reason = f"{row.name} computes nothing in {_WORDS[precision]} on {_PLACES[place]}"
        return Availability(False, "", reason, f"choose precision:=auto or {has}")
    return row.ask(machine, place, index)

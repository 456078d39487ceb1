"""The table of runtimes: one row each, read by settings, selection, doctor, command line and docs.

Nothing of a runtime is imported before it is asked for: a row names its class and its probe as
``"module:attribute"``. A package outside adds a row of its own through an entry point of the group
``gps_denied_inference.runtimes`` that leads to a :class:`RuntimeRow`, or, in a running program, by
:func:`register_runtime`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from gps_denied_inference.errors import (
    RegistrationError,
    RuntimeUnavailableError,
    UnknownNameError,
)
from gps_denied_inference.runtimes.specs import Precision

if TYPE_CHECKING:
    from gps_denied_inference.runtimes.contract import InferenceRuntime
    from gps_denied_inference.runtimes.machine import Availability, Machine

ENTRY_POINTS = "gps_denied_inference.runtimes"
AUTO_ORDER = (("onnxruntime", "cuda"), ("tensorrt", "cuda"), ("onnxruntime", "cpu"))
"""(runtime, device) in the order in which ``runtime: auto`` tries them. No others are tried."""


@dataclass(frozen=True)
class RuntimeRow:
    """One runtime.

    Attributes:
        name: how users ask for it.
        target: ``"module:Class"`` of an ``InferenceRuntime``; its keyword arguments are ``cache``,
            ``gate``, ``policy``, ``thermal_source`` and its own.
        hint: what to install where the library is absent.
        precisions: for each device kind (``"cuda"``, ``"cpu"``), in the order of preference, the
            precisions that it computes in.
        probe: ``"module:function"`` of (machine, device kind, GPU index) that returns an
            ``Availability``; empty: it works wherever its module can be imported.
        labels: other names, each for one precision; what runs is then reported by that label.
        needs_weights: it runs the checkpoint, not the ONNX graph.
        switch: environment variable that must be ``"1"`` for the runtime to exist; empty: none.
    """

    name: str
    target: str
    hint: str
    precisions: Mapping[str, tuple[Precision, ...]] = field(
        default_factory=lambda: {"cpu": ("fp32",)}
    )
    probe: str = ""
    labels: Mapping[str, Precision] = field(default_factory=dict)
    needs_weights: bool = False
    switch: str = ""

    def __post_init__(self) -> None:
        for reference in (self.target, self.probe):
            module, separator, attribute = reference.partition(":")
            if (reference or reference is self.target) and not (
                self.name and module and separator and attribute
            ):
                raise RegistrationError(
                    f"runtime '{self.name}' -> '{reference}': must be a name and 'module:Class'"
                )
        if not self.precisions or set(self.precisions) - {"cpu", "cuda"}:
            raise RegistrationError(
                f"runtime '{self.name}': precisions must name 'cpu', 'cuda' or both"
            )

    @property
    def exists(self) -> bool:
        """False while its switch is not set."""
        return not self.switch or os.environ.get(self.switch) == "1"

    def label(self, precision: str) -> str:
        """Return the name under which it runs in ``precision``."""
        return next((name for name, value in self.labels.items() if value == precision), self.name)

    def ask(self, machine: Machine, device: str, index: int = 0) -> Availability:
        """Return whether it works on ``"cpu"`` or on ``"cuda"`` GPU ``index`` of ``machine``."""
        from gps_denied_inference.runtimes.machine import Availability

        if self.probe:
            answer: Availability = _load(self.probe)(machine, device, index)
            return answer
        try:
            machine.load(self.target.partition(":")[0])
        except (ImportError, OSError) as error:
            return Availability(False, "", f"{self.name} cannot be imported ({error})", self.hint)
        return Availability(True, "installed")


_HERE = "gps_denied_inference.runtimes"
_BUILT_IN = (
    RuntimeRow(
        "onnxruntime",
        f"{_HERE}.onnx_runtime.runtime:OrtRuntime",
        "install it with 'pip install onnxruntime' (CPU) or 'pip install onnxruntime-gpu' (CUDA)",
        {"cuda": ("fp16", "fp32"), "cpu": ("fp32",)},
        f"{_HERE}.onnx_runtime.probe:probe",
    ),
    RuntimeRow(
        "tensorrt",
        f"{_HERE}.tensorrt.runtime:TensorrtRuntime",
        "install it with 'pip install tensorrt' or 'pip install tensorrt-rtx'; on Jetson it comes "
        "with JetPack",
        {"cuda": ("fp16", "fp32")},
        f"{_HERE}.tensorrt.probe:probe",
    ),
    RuntimeRow(
        "pytorch",
        f"{_HERE}.pytorch.runtime:PytorchRuntime",
        "install it with 'pip install torch' (for a GPU, a CUDA build)",
        {"cuda": ("fp16",), "cpu": ("fp32",)},
        f"{_HERE}.pytorch.probe:probe",
        labels={"pytorch_fp16": "fp16", "pytorch_fp32": "fp32"},
        needs_weights=True,
    ),
    RuntimeRow(
        "fake",
        f"{_HERE}.fake:FakeRuntime",
        "it is part of this package, for tests: set GDI_FAKE_RUNTIME=1",
        {"cpu": ("fp32", "fp16")},
        f"{_HERE}.fake:probe",
        switch="GDI_FAKE_RUNTIME",
    ),
)
_registered: dict[str, RuntimeRow] = {}


def register_runtime(
    name: str, target: str, hint: str, precisions: Mapping[str, tuple[Precision, ...]] | None = None
) -> None:
    """Make a runtime known to this process; see :class:`RuntimeRow` for the arguments.

    Raises:
        RegistrationError: the name stands for another class already. The same twice is fine.
    """
    row = RuntimeRow(name, target, hint, precisions or {"cpu": ("fp32",)})
    known = _every_row().get(name)
    if known is not None and known.target != target:
        raise RegistrationError(
            f"runtime '{name}' is {known.target} already, cannot also be {target}: "
            "choose another name"
        )
    _registered.setdefault(name, row)


def rows() -> tuple[RuntimeRow, ...]:
    """Return the runtimes that exist here, whether or not their libraries are installed."""
    return tuple(row for row in _every_row().values() if row.exists)


def broken_entry_points() -> Mapping[str, str]:
    """Return the entry points that give no row, with the reason."""
    return _installed()[1]


def runtime_names() -> tuple[str, ...]:
    """Return every name that :func:`create_runtime` takes, sorted."""
    return tuple(sorted(name for row in rows() for name in (row.name, *row.labels)))


def documented_names() -> tuple[str, ...]:
    """Return the names that this package itself brings to a user, in the order of the table."""
    public = [row for row in _BUILT_IN if not row.switch]
    return tuple(name for row in public for name in (row.name, *row.labels))


def find(name: str) -> tuple[RuntimeRow, Precision | Literal[""]]:
    """Return the row behind a name, and the precision that the name fixes ("" = none).

    Raises:
        UnknownNameError: no such runtime.
        RuntimeUnavailableError: an installed package brings it, but its entry point is broken.
    """
    if name in broken_entry_points():
        raise RuntimeUnavailableError(
            f"runtime '{name}' cannot be used: {broken_entry_points()[name]}",
            "mend or remove the package that brings it",
        )
    for row in rows():
        if name == row.name:
            return row, ""
        if name in row.labels:
            return row, row.labels[name]
    raise UnknownNameError("runtime", name, runtime_names())


def create_runtime(name: str, **options: Any) -> InferenceRuntime:
    """Create a runtime.

    Args:
        name: one of :func:`runtime_names`.
        options: ``cache``, ``gate``, ``policy``, ``thermal_source`` and the runtime's own.

    Raises:
        UnknownNameError: no such runtime.
        RuntimeUnavailableError: its library is not on this machine; says what to install.
        InvalidParameterError: an option is refused.
    """
    row, precision = find(name)
    if precision:
        options = {"precision": precision, **options}
    try:
        runtime: InferenceRuntime = _load(row.target)(**options)
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"runtime '{name}' cannot be used: {error}", row.hint
        ) from error
    return runtime


def _every_row() -> dict[str, RuntimeRow]:
    return {row.name: row for row in _BUILT_IN} | _installed()[0] | _registered


@functools.cache
def _installed() -> tuple[dict[str, RuntimeRow], dict[str, str]]:
    """Return the rows that other packages bring, and why others bring none."""
    found: dict[str, RuntimeRow] = {}
    broken: dict[str, str] = {}
    taken = {name for row in _BUILT_IN for name in (row.name, *row.labels)}
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            row = point.load()
        except Exception as error:  # noqa: BLE001 - a stranger's module may raise anything
            broken[point.name] = f"{point.value} does not load ({error})"
            continue
        if not isinstance(row, RuntimeRow):
            broken[point.name] = f"{point.value} is no RuntimeRow"
        elif {row.name, *row.labels} & taken:
            broken[point.name] = f"{point.value} takes the name of another runtime, '{row.name}'"
        else:
            found[row.name] = row
            taken |= {row.name, *row.labels}
    # A name that works is not broken, whatever else bears it.
    return found, {name: why for name, why in broken.items() if name not in taken}


def _load(reference: str) -> Any:
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)

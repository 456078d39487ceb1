"""Checks that every runtime makes the same way: configuration, handles, inputs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from gps_denied_inference.errors import (
    InputMismatchError,
    InvalidHandleError,
    InvalidParameterError,
)
from gps_denied_inference.runtimes.contract import (
    BuildConfig,
    EngineHandle,
    Tensors,
    TensorSpec,
)
from gps_denied_inference.runtimes.specs import check_bounds

if TYPE_CHECKING:
    from gps_denied_inference.thermal.state import ThermalState

DeviceKind = Literal["cpu", "cuda"]
_DEVICE = re.compile(r"(cpu)|cuda(?::(\d{1,3}))?\Z")


def parse_device(device: str) -> tuple[DeviceKind, int]:
    """Return kind (``"cpu"`` or ``"cuda"``) and index of a device name.

    Raises:
        InvalidParameterError: not ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    """
    match = _DEVICE.match(device) if isinstance(device, str) else None
    if match is None or match.end() != len(device):
        raise InvalidParameterError("device", device, "'cpu', 'cuda' or 'cuda:N'")
    return ("cpu", 0) if match.group(1) else ("cuda", int(match.group(2) or 0))


def check_config(config: BuildConfig) -> None:
    """Refuse a build configuration that no runtime can follow.

    Raises:
        InvalidParameterError: names the field, its value and the bound.
    """
    check_bounds(config)
    parse_device(config.device)


def check_handle(handle: EngineHandle, owner: object) -> Any:
    """Return the payload of a live handle that ``owner`` made.

    Raises:
        InvalidHandleError: made by another runtime, or released.
    """
    check_owner(handle, owner)
    if handle.released:
        raise InvalidHandleError(f"{handle!r} was released: deserialize the engine again")
    return handle._payload


def check_owner(handle: EngineHandle, owner: object) -> None:
    """Refuse a handle that ``owner`` did not make.

    Raises:
        InvalidHandleError: made by another runtime, or no handle at all.
    """
    if not isinstance(handle, EngineHandle) or handle._owner is not owner:
        raise InvalidHandleError(f"{handle!r} was not made by this runtime: use the one that did")


def check_inputs(specs: tuple[TensorSpec, ...], inputs: Tensors) -> list[npt.NDArray[Any]]:
    """Return the arrays in the order of ``specs``, contiguous in memory.

    Raises:
        InputMismatchError: a name is missing or unknown, a shape or dtype is not the engine's.
    """
    names = {spec.name for spec in specs}
    missing, unknown = sorted(names - set(inputs)), sorted(set(inputs) - names)
    if missing or unknown:
        raise InputMismatchError(
            f"inputs must be {', '.join(spec.name for spec in specs)}: "
            f"missing {', '.join(missing) or 'none'}, unknown {', '.join(unknown) or 'none'}"
        )
    arrays = []
    for spec in specs:
        array = inputs[spec.name]
        if not isinstance(array, np.ndarray):
            raise InputMismatchError(
                f"input '{spec.name}' must be a numpy array, got {type(array).__name__}"
            )
        if array.dtype != np.dtype(spec.dtype) or array.shape != spec.shape:
            raise InputMismatchError(
                f"input '{spec.name}' must be {spec.dtype} {spec.shape}, "
                f"got {array.dtype} {array.shape}"
            )
        arrays.append(np.ascontiguousarray(array))
    return arrays


def no_thermal_source() -> ThermalState:
    """Return what a runtime says of the temperature while no source is attached: UNKNOWN."""
    from gps_denied_inference.thermal.state import ThermalState

    return ThermalState.unknown("no thermal source is attached")

"""Checks that every runtime makes the same way: configuration, handles, inputs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, get_args

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
from gps_denied_inference.runtimes.specs import Precision

if TYPE_CHECKING:
    from gps_denied_inference.thermal.state import ThermalState

MAX_KEYPOINTS = 3840
"""TensorRT's TopK takes no more; the same bound for every runtime keeps them interchangeable."""
MAX_BATCH = 16
"""Images at a time; no aircraft carries more cameras on one accelerator."""
MAX_IMAGE_SIDE = 8192
"""px; larger images cannot be worked on in one piece on any supported device."""
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
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
    for name in ("height", "width"):
        value = getattr(config, name)
        if not _whole(value, 32, MAX_IMAGE_SIDE) or value % 32:
            raise InvalidParameterError(name, value, f"a multiple of 32 in 32..{MAX_IMAGE_SIDE}")
    if config.channels not in (1, 3) or isinstance(config.channels, bool):
        raise InvalidParameterError("channels", config.channels, "1 (mono) or 3 (RGB)")
    if not _whole(config.max_keypoints, 1, MAX_KEYPOINTS):
        raise InvalidParameterError(
            "max_keypoints", config.max_keypoints, f"a whole number in 1..{MAX_KEYPOINTS}"
        )
    threshold = config.detection_threshold
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float)):
        raise InvalidParameterError("detection_threshold", threshold, "a number in 0..1")
    if not 0.0 <= threshold <= 1.0:
        raise InvalidParameterError("detection_threshold", threshold, "a number in 0..1")
    if config.precision not in PRECISIONS:
        raise InvalidParameterError("precision", config.precision, "'fp32' or 'fp16'")
    if not _whole(config.warmup_iterations, 0, 1000):
        raise InvalidParameterError(
            "warmup_iterations", config.warmup_iterations, "a whole number in 0..1000"
        )
    if not _whole(config.threads, 0, 1024):
        raise InvalidParameterError("threads", config.threads, "a whole number in 0..1024")
    if not _whole(config.batch, 1, MAX_BATCH):
        raise InvalidParameterError("batch", config.batch, f"a whole number in 1..{MAX_BATCH}")
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


def _whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def no_thermal_source() -> ThermalState:
    """Return what a runtime says of the temperature while no source is attached: UNKNOWN."""
    from gps_denied_inference.thermal.state import ThermalState

    return ThermalState.unknown("no thermal source is attached")

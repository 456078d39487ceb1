"""An input of a session that stays on the device."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


class DeviceValue(Protocol):
    """What of ``onnxruntime.OrtValue`` is used."""

    def update_inplace(self, array: npt.NDArray[Any]) -> None:
        """Copy an array into the buffer."""


class DeviceInput:
    """A buffer on the device, and what it holds.

    A frame is matched with one reference after another: half of the matcher's inputs stay as they
    are, and comparing them takes a tenth of the time of copying them to the device.

    Args:
        value: on the device.
        held: what it holds; becomes this object's own.
    """

    def __init__(self, value: DeviceValue, held: npt.NDArray[Any]) -> None:
        self._value = value
        self._held: npt.NDArray[Any] | None = held

    def update(self, array: npt.NDArray[Any]) -> None:
        """Make the buffer hold an array of its shape and dtype, contiguous in memory."""
        held = self._held
        if held is not None and _alike(held, array):
            return
        self._held = None  # not known, should the copy fail
        self._value.update_inplace(array)
        if held is None:
            held = np.empty_like(array)
        np.copyto(held, array)
        self._held = held


def _alike(one: npt.NDArray[Any], two: npt.NDArray[Any]) -> bool:
    """Tell whether two arrays hold the same bytes: NaN is like itself, -0.0 is not like 0.0."""
    here, there = one.reshape(-1).view(np.uint8), two.reshape(-1).view(np.uint8)
    # Images differ from the start on.
    return np.array_equal(here[:64], there[:64]) and np.array_equal(here, there)

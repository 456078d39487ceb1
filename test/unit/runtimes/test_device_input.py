"""What the device holds is what was last asked for, and is copied only where it differs."""

from __future__ import annotations

import numpy as np
import pytest

from gps_denied_inference.runtimes.onnx_runtime.device_input import DeviceInput


class OrtValueDouble:
    """Stands in for ``onnxruntime.OrtValue`` on a GPU."""

    def __init__(self, array):
        self.array = array.copy()
        self.copies = 0
        self.fails = False

    def update_inplace(self, array):
        if self.fails:
            raise RuntimeError("CUDA failure 700")
        self.array[...] = array
        self.copies += 1


@pytest.fixture
def value():
    return OrtValueDouble(np.zeros((3, 40), np.float32))


def test_the_same_again_is_not_copied(value):
    device = DeviceInput(value, np.zeros((3, 40), np.float32))
    array = np.arange(120, dtype=np.float32).reshape(3, 40)
    device.update(array)
    device.update(array.copy())
    assert value.copies == 1
    np.testing.assert_array_equal(value.array, array)


@pytest.mark.parametrize("at", [(0, 0), (1, 20), (2, 39)])
def test_one_value_changed_in_place_is_seen(value, at):
    """The caller may fill one array again and again."""
    device = DeviceInput(value, np.zeros((3, 40), np.float32))
    array = np.ones((3, 40), np.float32)
    device.update(array)
    array[at] = 2.0
    device.update(array)
    assert value.copies == 2
    np.testing.assert_array_equal(value.array, array)


def test_the_sign_of_zero_and_nan(value):
    device = DeviceInput(value, np.zeros((3, 40), np.float32))
    device.update(np.full((3, 40), -0.0, np.float32))
    assert value.copies == 1
    nan = np.full((3, 40), np.nan, np.float32)
    device.update(nan)
    device.update(nan)
    assert value.copies == 2


def test_after_a_failed_copy_nothing_is_taken_for_granted(value):
    device = DeviceInput(value, np.zeros((3, 40), np.float32))
    array = np.ones((3, 40), np.float32)
    device.update(array)
    value.fails = True
    with pytest.raises(RuntimeError):
        device.update(array * 2.0)
    value.fails = False
    device.update(array)
    assert value.copies == 2

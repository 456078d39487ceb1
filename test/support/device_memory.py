"""Device memory, as the driver counts it."""

from __future__ import annotations

import ctypes


def device_memory_used() -> int:
    """Return bytes of device memory in use, by whomever, as the driver counts them."""
    driver = ctypes.CDLL("libcuda.so.1")
    device, context = ctypes.c_int(), ctypes.c_void_p()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    for status in (
        driver.cuInit(0),
        driver.cuDeviceGet(ctypes.byref(device), 0),
        driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device),
        driver.cuCtxPushCurrent_v2(context),
        driver.cuCtxSynchronize(),
        driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)),
        driver.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p())),
        # Retained on purpose until the process ends: the context itself is not what is measured.
    ):
        assert status == 0, f"the CUDA driver returned {status}"
    return total.value - free.value

"""What ONNX Runtime says when it fails, and which of our exceptions that becomes."""

from __future__ import annotations

import pytest

from gps_denied_inference.errors import (
    DeviceOutOfMemoryError,
    GpsDeniedInferenceError,
    InferenceError,
    RuntimeUnavailableError,
    UnsupportedDeviceError,
)
from gps_denied_inference.runtimes.onnx_runtime.session import SessionSettings, map_error


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("CUDA failure 2: out of memory ; GPU=0 ; hostname=x", DeviceOutOfMemoryError),
        ("Failed to allocate memory for requested buffer of size 99", DeviceOutOfMemoryError),
        ("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED", DeviceOutOfMemoryError),
        ("Available memory of 9 is smaller than requested bytes of 99", DeviceOutOfMemoryError),
        ("std::bad_alloc", DeviceOutOfMemoryError),
        ("CUDA failure 209: no kernel image is available", UnsupportedDeviceError),
        ("CUDA failure 35: CUDA driver version is insufficient", RuntimeUnavailableError),
        ("Failed to load library libx.so: libcudnn.so.9: cannot open", RuntimeUnavailableError),
        ("CUDA failure 700: an illegal memory access", InferenceError),
    ],
)
def test_vendor_errors_get_their_class(text: str, kind: type[GpsDeniedInferenceError]) -> None:
    settings = SessionSettings("cuda", device_index=1)
    mapped = map_error(RuntimeError(text), "run the engine", settings, InferenceError)
    assert type(mapped) is kind
    assert text.split(":")[0] in str(mapped)

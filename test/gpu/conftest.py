"""What every test of this folder needs."""

from __future__ import annotations

import pytest

from gps_denied_inference.runtimes.gpus import survey


@pytest.fixture(scope="session", autouse=True)
def gpu() -> None:
    """Skip where there is no NVIDIA GPU."""
    found = survey()
    if not found.gpus:
        pytest.skip(found.reason or "there is no GPU")


@pytest.fixture(scope="session")
def cuda_provider() -> None:
    """Skip where ONNX Runtime cannot use the GPU."""
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime is built without CUDA")

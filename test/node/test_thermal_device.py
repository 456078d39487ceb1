"""The temperature is that of the GPU that runs, however CUDA and NVML count (doubles of both)."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: rclpy is not installed here")

from gps_denied_inference.node import thermal_publisher
from gps_denied_inference.node.thermal_publisher import gpu_of
from gps_denied_inference.runtimes.gpus import Gpu, GpuSurvey

# As CUDA counts with CUDA_VISIBLE_DEVICES=1,0: the other way round than NVML.
REVERSED = GpuSurvey(
    (
        Gpu(0, "second slot", "9.0", 1, "0000:3b:00.0", "GPU-3b"),
        Gpu(1, "first slot", "9.0", 1, "0000:0b:00.0", "GPU-0b"),
    )
)


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("auto", "0000:3b:00.0"),
        ("cuda", "0000:3b:00.0"),
        ("cuda:0", "0000:3b:00.0"),
        ("cuda:1", "0000:0b:00.0"),
        ("cpu", 0),
    ],
)
def test_the_gpu_that_cuda_means(monkeypatch, device, expected):
    monkeypatch.setattr(thermal_publisher, "survey", lambda: REVERSED)
    assert gpu_of(device) == expected


def test_without_a_bus_the_uuid_tells(monkeypatch):
    board = GpuSurvey((Gpu(0, "board", "8.7", 1, "", "GPU-07"),))
    monkeypatch.setattr(thermal_publisher, "survey", lambda: board)
    assert gpu_of("auto") == "GPU-07"


def test_no_gpu(monkeypatch):
    monkeypatch.setattr(thermal_publisher, "survey", lambda: GpuSurvey(reason="there is none"))
    assert gpu_of("auto") == gpu_of("cpu") == gpu_of("cuda:1") == 0

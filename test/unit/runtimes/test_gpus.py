from __future__ import annotations

import ctypes
from typing import Any

import pytest

from gps_denied_inference.errors import RuntimeUnavailableError
from gps_denied_inference.runtimes import gpus


class Driver:
    """Answers as ``libcuda`` does, through the pointers that it is given."""

    def __init__(self, status: int, count: int) -> None:
        self.status, self.count = status, count

    def cuInit(self, flags: int) -> int:  # noqa: N802
        assert flags == 0
        return self.status

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802
        version._obj.value = 13020
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self.count
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:  # noqa: N802
        device._obj.value = 40 + index
        return 0

    def cuDeviceGetName(self, name: Any, length: int, device: Any) -> int:  # noqa: N802
        name.value = f"GPU {device.value}".encode()
        return 0

    def cuDeviceTotalMem_v2(self, memory: Any, device: Any) -> int:  # noqa: N802
        memory._obj.value = 8 << 30
        return 0

    def cuDeviceGetPCIBusId(self, text: Any, length: int, device: Any) -> int:  # noqa: N802
        text.value = f"0000:{device.value:02X}:00.0".encode()
        return 0

    def cuDeviceGetUuid_v2(self, raw: Any, device: Any) -> int:  # noqa: N802
        raw.raw = bytes([device.value] * 16)
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:  # noqa: N802
        value._obj.value = {75: 8, 76: 7}[attribute]
        return 0


def survey_with(monkeypatch: pytest.MonkeyPatch, driver: Any) -> gpus.GpuSurvey:
    def load(name: str) -> Any:
        assert name == "libcuda.so.1"
        if isinstance(driver, OSError):
            raise driver
        return driver

    monkeypatch.setattr(ctypes, "CDLL", load)
    return gpus.survey()


def test_gpus_are_described(monkeypatch: pytest.MonkeyPatch) -> None:
    found = survey_with(monkeypatch, Driver(0, 2))
    assert found.driver_cuda == "13.2"
    assert found.gpus == (
        gpus.Gpu(
            0, "GPU 40", "8.7", 8 << 30, "0000:28:00.0", f"GPU-{'28' * 4}-2828-2828-2828-{'28' * 6}"
        ),
        gpus.Gpu(
            1, "GPU 41", "8.7", 8 << 30, "0000:29:00.0", f"GPU-{'29' * 4}-2929-2929-2929-{'29' * 6}"
        ),
    )
    assert found.require("cuda:1", 1) is found.gpus[1]
    with pytest.raises(RuntimeUnavailableError, match=r"shows 2 GPU") as caught:
        found.require("cuda:2", 2)
    assert caught.value.hint == "choose cuda:0 to cuda:1"


@pytest.mark.parametrize(
    ("driver", "reason"),
    [
        (OSError("not found"), "no NVIDIA driver"),
        (Driver(100, 0), "shows no GPU to this process"),
        (Driver(0, 0), "shows no GPU to this process"),
        (Driver(803, 0), "cuInit returned 803"),
    ],
    ids=["no driver", "no device", "hidden", "mismatch"],
)
def test_no_gpu_is_an_answer_with_a_reason(
    monkeypatch: pytest.MonkeyPatch, driver: Any, reason: str
) -> None:
    found = survey_with(monkeypatch, driver)
    assert found.gpus == ()
    assert reason in found.reason
    with pytest.raises(RuntimeUnavailableError, match=reason):
        found.require("cuda", 0)

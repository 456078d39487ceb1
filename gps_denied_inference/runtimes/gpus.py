"""Which NVIDIA GPUs the driver shows to this process, asked of the driver itself.

Only the driver's own library (``libcuda``) is needed, which every machine that can run CUDA has,
Jetson included; no Python package and no CUDA toolkit. No context is made, so asking costs no
device memory. ``CUDA_VISIBLE_DEVICES`` is respected, as CUDA does.
"""

from __future__ import annotations

import ctypes
import uuid
from dataclasses import dataclass

from gps_denied_inference.errors import RuntimeUnavailableError

DRIVER_LIBRARY = "libcuda.so.1"

# CUdevice_attribute values of the CUDA driver API.
_COMPUTE_CAPABILITY_MAJOR = 75
_COMPUTE_CAPABILITY_MINOR = 76
_NO_DEVICE = 100
_NAME_LENGTH = 256
_BUS_ID_LENGTH = 32


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
        index: N of ``cuda:N``.
        name: as the driver calls it.
        compute_capability: e.g. ``"8.7"``.
        memory: bytes of device memory in all.
        pci_bus_id: e.g. ``"0000:0b:00.0"``; the same whatever order the GPUs are counted in.
            Empty where the driver does not say.
        uuid: e.g. ``"GPU-12345678-..."``, likewise.
    """

    index: int
    name: str
    compute_capability: str
    memory: int
    pci_bus_id: str = ""
    uuid: str = ""


@dataclass(frozen=True)
class GpuSurvey:
    """What the driver said.

    Attributes:
        gpus: the GPUs, by index.
        driver_cuda: the newest CUDA version that the driver can run, e.g. ``"13.0"``, or empty.
        reason: why there is none, empty where there is one.
    """

    gpus: tuple[Gpu, ...] = ()
    driver_cuda: str = ""
    reason: str = ""

    def get(self, index: int) -> Gpu | None:
        """Return the GPU with this index, or None."""
        return self.gpus[index] if index < len(self.gpus) else None

    def require(self, device: str, index: int) -> Gpu:
        """Return the GPU with this index.

        Raises:
            RuntimeUnavailableError: there is none; says why and what to do.
        """
        gpu = self.get(index)
        if gpu is not None:
            return gpu
        if self.gpus:
            raise RuntimeUnavailableError(
                f"{device} was asked for, but the driver shows {len(self.gpus)} GPU(s)",
                f"choose cuda:0 to cuda:{len(self.gpus) - 1}",
            )
        raise RuntimeUnavailableError(
            f"{device} was asked for, but {self.reason}",
            "install the NVIDIA driver and check with nvidia-smi, or choose device:=cpu",
        )


def survey() -> GpuSurvey:
    """Ask the driver. Never raises: a machine without a GPU is an answer."""
    try:
        driver = ctypes.CDLL(DRIVER_LIBRARY)
    except OSError:
        return GpuSurvey(reason=f"there is no NVIDIA driver here ({DRIVER_LIBRARY} is not found)")
    status = driver.cuInit(0)
    if status:
        if status == _NO_DEVICE:
            return GpuSurvey(reason="the NVIDIA driver shows no GPU to this process")
        return GpuSurvey(reason=f"the NVIDIA driver does not start (cuInit returned {status})")
    number = ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(number))
    version = f"{number.value // 1000}.{number.value % 1000 // 10}"
    driver.cuDeviceGetCount(ctypes.byref(number))
    gpus = tuple(_gpu(driver, index) for index in range(number.value))
    reason = "" if gpus else "the NVIDIA driver shows no GPU to this process"
    return GpuSurvey(gpus, version, reason)


def _gpu(driver: ctypes.CDLL, index: int) -> Gpu:
    device, number = ctypes.c_int(), ctypes.c_int()
    memory = ctypes.c_size_t()
    name = ctypes.create_string_buffer(_NAME_LENGTH)
    driver.cuDeviceGet(ctypes.byref(device), index)
    driver.cuDeviceGetName(name, _NAME_LENGTH, device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    capability = []
    for attribute in (_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR):
        driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
        capability.append(str(number.value))
    return Gpu(
        index,
        name.value.decode(errors="replace"),
        ".".join(capability),
        memory.value,
        _bus_id(driver, device),
        _uuid(driver, device),
    )


def _bus_id(driver: ctypes.CDLL, device: ctypes.c_int) -> str:
    text = ctypes.create_string_buffer(_BUS_ID_LENGTH)
    if driver.cuDeviceGetPCIBusId(text, _BUS_ID_LENGTH, device):
        return ""
    return text.value.decode("ascii", "replace").lower()


def _uuid(driver: ctypes.CDLL, device: ctypes.c_int) -> str:
    """Return the UUID as NVML writes it; of a MIG instance, its own."""
    raw = ctypes.create_string_buffer(16)
    # The second version, of CUDA 11.4, knows MIG instances.
    ask = getattr(driver, "cuDeviceGetUuid_v2", None) or driver.cuDeviceGetUuid
    if ask(raw, device):
        return ""
    return f"GPU-{uuid.UUID(bytes=raw.raw)}"

"""GPU memory of another process, as NVML counts it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def gpu_memory(process: int) -> Iterator[tuple[Callable[[], int], str]]:
    """Open NVML; yield what reads the bytes that ``process`` holds on all GPUs, and whose they are.

    To be opened while the process has used CUDA: from then on NVML lists it. NVML numbers processes
    as the machine does, so one in a container may not be found; then all memory in use, by
    whomever, is what there is to read, and the text says so.

    Needs ``nvidia-ml-py``.
    """
    import pynvml

    pynvml.nvmlInit()
    try:
        gpus = [
            pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())
        ]

        def of_process() -> list[int]:
            return [
                int(found.usedGpuMemory)
                for gpu in gpus
                for found in pynvml.nvmlDeviceGetComputeRunningProcesses(gpu)
                if found.pid == process and found.usedGpuMemory is not None
            ]

        def of_everyone() -> int:
            return sum(int(pynvml.nvmlDeviceGetMemoryInfo(gpu).used) for gpu in gpus)

        if of_process():
            yield (lambda: sum(of_process())), "the node's process"
        else:
            yield of_everyone, "everyone: NVML does not list the node's process"
    finally:
        pynvml.nvmlShutdown()

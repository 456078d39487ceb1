"""An ``inference_node`` whose vendor's library hangs, fails or answers NaN on command.

The command is the text of the file that ``GDI_FAULT`` names: ``hang``, ``hang search`` (the search
on the map alone), ``fail`` or ``nan``; no file, no fault. The double stands where the package calls
the library: ``InferenceSession.run`` of ONNX Runtime, ``Module.__call__`` of PyTorch, the stream's
synchronisation of TensorRT (whose own double runs on a machine without a GPU). A hanging call
touches the file ``hangs`` beside the command and sleeps in native code, as a driver would, without
the interpreter's lock.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gps_denied_inference.runtimes.memory import keep_to_one_arena

if __name__ == "__main__":
    keep_to_one_arena()  # before any library begins a thread, as scripts/inference_node does

import numpy as np

COMMAND = Path(os.environ["GDI_FAULT"])
PASSES = "GDI_FAULT_PASSES" in os.environ


def faulty(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``call``, but for what the command says."""

    @functools.wraps(call)
    def called(*arguments: Any, **named: Any) -> Any:
        try:
            command = COMMAND.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return call(*arguments, **named)
        if command == "hang search" and threading.current_thread().name != "localization":
            return call(*arguments, **named)
        if command.startswith("hang"):
            COMMAND.with_name("hangs").touch()
            # Without GDI_FAULT_PASSES it hangs for ever; with it, until the file is gone.
            while not (PASSES and not COMMAND.exists()):
                ctypes.CDLL(None).usleep(200_000 if PASSES else 900_000_000)
            return call(*arguments, **named)
        if command == "fail":
            raise RuntimeError("the double of the vendor's library fails")
        results = call(*arguments, **named)
        return [np.full_like(r, np.nan) if r.dtype.kind == "f" else r for r in results]

    return called


def stand_in(runtime: str) -> None:
    """Put the double in the library's place."""
    if runtime == "onnxruntime":
        import onnxruntime

        onnxruntime.InferenceSession.run = faulty(onnxruntime.InferenceSession.run)
    elif runtime == "pytorch":
        import torch

        torch.nn.Module.__call__ = faulty(torch.nn.Module.__call__)
    elif runtime == "tensorrt":
        _tensorrt()
    else:
        from gps_denied_inference.runtimes import fake

        fake._FakeEngine.run = faulty(fake._FakeEngine.run)


def _tensorrt() -> None:
    import tensorrt_double as double

    from gps_denied_inference import networks, runtimes
    from gps_denied_inference.runtimes.gpus import Gpu, GpuSurvey
    from gps_denied_inference.runtimes.selection import Selection

    double.DoubleCuda.synchronize = faulty(double.DoubleCuda.synchronize)

    def create(name: str, **options: Any) -> Any:
        gpus = GpuSurvey((Gpu(0, "Orin", "8.7", 1 << 35),), "12.6")
        return runtimes.create_runtime(
            name, module=double, gpus=gpus, cuda=double.DoubleCuda, **options
        )

    networks.create_runtime = create
    networks.select = lambda *_, **__: Selection("tensorrt", "cuda:0", "fp16", ())


if __name__ == "__main__":
    stand_in(os.environ["GDI_FAULT_RUNTIME"])
    from gps_denied_inference.node.process import main

    sys.exit(main())

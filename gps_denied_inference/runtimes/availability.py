"""What each runtime needs, and whether this machine has it.

Selection and ``gdi doctor`` ask here. A library counts as present only when it can be imported:
a package whose shared libraries do not load is as absent as one that was never installed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from gps_denied_inference.runtimes.gpus import GpuSurvey, survey

TENSORRT_LIBRARIES = ("tensorrt", "tensorrt_rtx")
"""In the order in which they are tried."""

RTX_COMPUTE_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
"""GPUs that TensorRT for RTX runs on."""

_INSTALL = "python3 -m pip install "
_INSTALL_TENSORRT = _INSTALL + "tensorrt cuda-python"
_INSTALL_ORT = _INSTALL + "onnxruntime"
_INSTALL_ORT_GPU = (
    "python3 -m pip uninstall onnxruntime && " + _INSTALL + "onnxruntime-gpu[cuda,cudnn]"
)
_INSTALL_TORCH = _INSTALL + "torch"
_INSTALL_DRIVER = "install the NVIDIA driver and check it with nvidia-smi"


@dataclass(frozen=True)
class Availability:
    """Whether a runtime works here.

    Attributes:
        works: True where nothing that it needs is missing.
        version: of its library, empty where that is absent.
        reason: why it does not work, empty where it does.
        remedy: the command or step that mends it, empty where it works.
    """

    works: bool
    version: str = ""
    reason: str = ""
    remedy: str = ""


Importer = Callable[[str], ModuleType]


class Machine:
    """This machine, as far as the runtimes are concerned.

    Args:
        gpus: the GPUs; None asks the driver, once, when first needed.
        import_module: replaces ``importlib.import_module`` in tests.
    """

    def __init__(
        self, gpus: GpuSurvey | None = None, import_module: Importer = importlib.import_module
    ) -> None:
        self._gpus = gpus
        self._import = import_module

    @property
    def gpus(self) -> GpuSurvey:
        """The GPUs that the driver shows."""
        if self._gpus is None:
            self._gpus = survey()
        return self._gpus

    def tensorrt(self, index: int = 0) -> Availability:
        """Return whether ``tensorrt`` or ``tensorrt_rtx`` can run engines on GPU ``index``."""
        gpu = self.gpus.get(index)
        if gpu is None:  # asked first: without a GPU the large library is not even imported
            return Availability(False, "", self._no_gpu(index), _INSTALL_DRIVER)
        found = find_tensorrt(self._import)
        if found is None:
            reason = "neither tensorrt nor tensorrt_rtx can be imported"
            return Availability(False, "", reason, _INSTALL_TENSORRT)
        version = f"{found.__name__} {found.__version__}"
        if (
            found.__name__ == "tensorrt_rtx"
            and gpu.compute_capability not in RTX_COMPUTE_CAPABILITIES
        ):
            reason = (
                f"TensorRT for RTX does not run on {gpu.name} (compute capability"
                f" {gpu.compute_capability}; it takes {', '.join(RTX_COMPUTE_CAPABILITIES)})"
            )
            return Availability(False, version, reason, _INSTALL_TENSORRT)
        missing = self._import_failure("cuda.bindings.runtime")
        if missing:
            remedy = _INSTALL + "cuda-python"
            return Availability(False, version, f"cuda-python is missing ({missing})", remedy)
        return Availability(True, version)

    def onnxruntime(self, device: str = "cpu", index: int = 0) -> Availability:
        """Return whether ONNX Runtime works on ``"cpu"`` or on ``"cuda"`` GPU ``index``."""
        try:
            library = self._import("onnxruntime")
            version = str(library.__version__)
            providers = list(library.get_available_providers())
        except (ImportError, AttributeError, OSError) as error:
            reason = f"onnxruntime cannot be imported ({error})"
            return Availability(False, "", reason, _INSTALL_ORT)
        if device == "cpu":
            return Availability(True, version)
        if self.gpus.get(index) is None:
            return Availability(False, version, self._no_gpu(index), _INSTALL_DRIVER)
        if "CUDAExecutionProvider" not in providers:
            reason = f"onnxruntime {version} was built without its CUDA provider"
            return Availability(False, version, reason, _INSTALL_ORT_GPU)
        return Availability(True, version)

    def pytorch_fp16(self, index: int = 0) -> Availability:
        """Return whether PyTorch can use GPU ``index``."""
        cpu = self.pytorch_fp32()
        if not cpu.works:
            return cpu
        if self.gpus.get(index) is None:
            return Availability(False, cpu.version, self._no_gpu(index), _INSTALL_DRIVER)
        torch = self._import("torch")
        if not torch.cuda.is_available():
            reason = f"PyTorch {cpu.version} sees no GPU: it is a CPU build or too new a CUDA"
            remedy = "install a CUDA build of PyTorch: https://pytorch.org/get-started"
            return Availability(False, cpu.version, reason, remedy)
        return Availability(True, cpu.version)

    def pytorch_fp32(self) -> Availability:
        """Return whether PyTorch works on the CPU."""
        try:
            return Availability(True, str(self._import("torch").__version__))
        except (ImportError, AttributeError, OSError) as error:
            reason = f"torch cannot be imported ({error})"
            return Availability(False, "", reason, _INSTALL_TORCH)

    def _no_gpu(self, index: int) -> str:
        if self.gpus.gpus:
            return f"there is no cuda:{index}, the driver shows {len(self.gpus.gpus)} GPU(s)"
        return self.gpus.reason

    def _import_failure(self, name: str) -> str:
        try:
            self._import(name)
        except (ImportError, OSError) as error:
            return str(error)
        return ""


def find_tensorrt(
    import_module: Importer = importlib.import_module, library: str = "auto"
) -> ModuleType | None:
    """Return ``tensorrt``, else ``tensorrt_rtx``, else None; or the one named, or None."""
    for name in TENSORRT_LIBRARIES if library == "auto" else (library,):
        try:
            module = import_module(name)
        except (ImportError, OSError):
            continue
        # Type stubs leave a folder of the same name, which imports as an empty package.
        if hasattr(module, "Builder"):
            return module
    return None

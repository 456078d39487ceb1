"""This machine as the runtimes see it: its GPUs, and which libraries can be imported.

A library counts as present only when it can be imported: a package whose shared libraries do not
load is as absent as one that was never installed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from gps_denied_inference.runtimes.gpus import GpuSurvey, survey

INSTALL = "python3 -m pip install "
INSTALL_DRIVER = "install the NVIDIA driver and check it with nvidia-smi"


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
    """What a probe may ask.

    Args:
        gpus: the GPUs; None asks the driver, once, when first needed.
        import_module: replaces ``importlib.import_module`` in tests.
    """

    def __init__(
        self, gpus: GpuSurvey | None = None, import_module: Importer = importlib.import_module
    ) -> None:
        self._gpus = gpus
        self.load = import_module
        """Imports a module by name; raises as an import does."""

    @property
    def gpus(self) -> GpuSurvey:
        """The GPUs that the driver shows."""
        if self._gpus is None:
            self._gpus = survey()
        return self._gpus

    def without_gpu(self, index: int, version: str = "") -> Availability | None:
        """Return why nothing runs on GPU ``index``, None where the driver shows that GPU."""
        if self.gpus.get(index) is not None:
            return None
        reason = self.gpus.reason
        if self.gpus.gpus:
            reason = f"there is no cuda:{index}, the driver shows {len(self.gpus.gpus)} GPU(s)"
        return Availability(False, version, reason, INSTALL_DRIVER)

"""Runtimes by name. A runtime's module, and with it the vendor's library, is imported only when
that runtime is created.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, NamedTuple

from gps_denied_inference.errors import (
    RegistrationError,
    RuntimeUnavailableError,
    UnknownNameError,
)

if TYPE_CHECKING:
    from gps_denied_inference.runtimes.contract import InferenceRuntime


class _Registration(NamedTuple):
    target: str
    hint: str


_registry: dict[str, _Registration] = {}


def register_runtime(name: str, target: str, hint: str) -> None:
    """Make a runtime known.

    Args:
        name: how users ask for it.
        target: ``"module:Class"``; imported when the runtime is created.
        hint: what to install where that import fails.

    Raises:
        RegistrationError: ``name`` stands for another class already. The same twice is fine.
    """
    module, separator, attribute = target.partition(":")
    if not (name and module and separator and attribute):
        raise RegistrationError(
            f"runtime '{name}' -> '{target}': must be a name and 'module:Class'"
        )
    known = _registry.get(name)
    if known is not None and known.target != target:
        raise RegistrationError(
            f"runtime '{name}' is {known.target} already, cannot also be {target}: "
            "choose another name"
        )
    _registry[name] = _Registration(target, hint)


def runtime_names() -> tuple[str, ...]:
    """Return the names that are known, whether or not their libraries are installed."""
    return tuple(sorted(_registry))


def runtime_hint(name: str) -> str:
    """Return what to install for a runtime.

    Raises:
        UnknownNameError: no such runtime.
    """
    return _lookup(name).hint


def create_runtime(name: str, **options: Any) -> InferenceRuntime:
    """Create a runtime.

    Args:
        name: one of :func:`runtime_names`.
        options: ``cache``, ``gate``, ``policy``, ``thermal_source`` and the runtime's own.

    Raises:
        UnknownNameError: no such runtime.
        RuntimeUnavailableError: its library is not on this machine; says what to install.
        InvalidParameterError: an option is refused.
    """
    registration = _lookup(name)
    module, _, attribute = registration.target.partition(":")
    try:
        factory = getattr(importlib.import_module(module), attribute)
        runtime: InferenceRuntime = factory(**options)
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"runtime '{name}' cannot be used: {error}", registration.hint
        ) from error
    return runtime


def _lookup(name: str) -> _Registration:
    try:
        return _registry[name]
    except KeyError:
        raise UnknownNameError("runtime", name, _registry) from None


register_runtime(
    "onnxruntime",
    "gps_denied_inference.runtimes.onnx_runtime.runtime:OrtRuntime",
    "install it with 'pip install onnxruntime' (CPU) or 'pip install onnxruntime-gpu' (CUDA)",
)
register_runtime(
    "tensorrt",
    "gps_denied_inference.runtimes.tensorrt.runtime:TensorrtRuntime",
    "install it with 'pip install tensorrt' or 'pip install tensorrt-rtx'; on Jetson it comes "
    "with JetPack",
)
register_runtime(
    "pytorch_fp16",
    "gps_denied_inference.runtimes.pytorch.runtime:PytorchFp16Runtime",
    "install it with 'pip install torch' (a CUDA build)",
)
register_runtime(
    "pytorch_fp32",
    "gps_denied_inference.runtimes.pytorch.runtime:PytorchFp32Runtime",
    "install it with 'pip install torch'",
)
register_runtime(
    "fake",
    "gps_denied_inference.runtimes.fake:FakeRuntime",
    "it is part of this package",
)

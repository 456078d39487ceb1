"""Inference libraries behind one contract. Importing this package imports none of them."""

from typing import TYPE_CHECKING

from gps_denied_inference.lazy import exports

if TYPE_CHECKING:
    from gps_denied_inference.runtimes.contract import EngineHandle, InferenceRuntime, Readback
    from gps_denied_inference.runtimes.specs import BuildConfig, Model, TensorSpec
    from gps_denied_inference.runtimes.table import (
        RuntimeRow,
        create_runtime,
        register_runtime,
        runtime_names,
    )

__all__ = [
    "BuildConfig",
    "EngineHandle",
    "InferenceRuntime",
    "Model",
    "Readback",
    "RuntimeRow",
    "TensorSpec",
    "create_runtime",
    "register_runtime",
    "runtime_names",
]

if not TYPE_CHECKING:
    __getattr__ = exports(
        __name__,
        {
            "contract": ("EngineHandle", "InferenceRuntime", "Readback"),
            "specs": ("BuildConfig", "Model", "TensorSpec"),
            "table": ("RuntimeRow", "create_runtime", "register_runtime", "runtime_names"),
        },
    )

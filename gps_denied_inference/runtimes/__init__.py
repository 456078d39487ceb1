"""Inference libraries behind one contract. Importing this package imports none of them."""

from gps_denied_inference.runtimes.table import (
    RuntimeRow,
    create_runtime,
    register_runtime,
    runtime_names,
)

__all__ = ["RuntimeRow", "create_runtime", "register_runtime", "runtime_names"]

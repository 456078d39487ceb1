"""Networks: what is known of each, their weights, their graphs and their torch modules."""

from gps_denied_inference.models.registry import (
    ArchitectureFactory,
    default_registry,
    load_module,
    register_architecture,
)

__all__ = ["ArchitectureFactory", "default_registry", "load_module", "register_architecture"]

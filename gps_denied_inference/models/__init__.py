"""Networks: what is known of each, their weights, their graphs and their torch modules."""

from typing import TYPE_CHECKING

from gps_denied_inference.lazy import exports

if TYPE_CHECKING:
    from gps_denied_inference.models.registry import (
        ArchitectureFactory,
        default_registry,
        load_module,
        register_architecture,
    )
    from gps_denied_inference.models.zoo import PublishedWeights, ZooEntry, register_model, resolve

__all__ = [
    "ArchitectureFactory",
    "PublishedWeights",
    "ZooEntry",
    "default_registry",
    "load_module",
    "register_architecture",
    "register_model",
    "resolve",
]

if not TYPE_CHECKING:
    __getattr__ = exports(
        __name__,
        {
            "registry": (
                "ArchitectureFactory",
                "default_registry",
                "load_module",
                "register_architecture",
            ),
            "zoo": ("PublishedWeights", "ZooEntry", "register_model", "resolve"),
        },
    )

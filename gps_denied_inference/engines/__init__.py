"""Engines on disk: built once, described by a manifest, verified before they are loaded."""

from typing import TYPE_CHECKING

from gps_denied_inference.lazy import exports

if TYPE_CHECKING:
    from gps_denied_inference.engines.cache import EngineCache, default_root
    from gps_denied_inference.engines.entry import EngineCacheEntry
    from gps_denied_inference.engines.gate import (
        EngineGate,
        GateDecision,
        RunningMachine,
        VerifiedEngine,
    )
    from gps_denied_inference.engines.manifest import EngineManifest

__all__ = [
    "EngineCache",
    "EngineCacheEntry",
    "EngineGate",
    "EngineManifest",
    "GateDecision",
    "RunningMachine",
    "VerifiedEngine",
    "default_root",
]

if not TYPE_CHECKING:
    __getattr__ = exports(
        __name__,
        {
            "cache": ("EngineCache", "default_root"),
            "entry": ("EngineCacheEntry",),
            "gate": ("EngineGate", "GateDecision", "RunningMachine", "VerifiedEngine"),
            "manifest": ("EngineManifest",),
        },
    )

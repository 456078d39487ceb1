"""An engine on disk, as runtimes and cache hand it to each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gps_denied_inference.engines.manifest import EngineManifest
from gps_denied_inference.runtimes.specs import BuildConfig, Model


@dataclass(frozen=True)
class EngineCacheEntry:
    """An engine on disk: the artefact and the manifest that describes it.

    Attributes:
        artifact: the file that is deserialised.
        manifest: what it is and where it may run.
        model: the network that it was made from.
        config: what it was fixed to.
    """

    artifact: Path
    manifest: EngineManifest
    model: Model
    config: BuildConfig

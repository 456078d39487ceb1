"""Why the gate refuses an engine: one word each, for logs, scripts and ``--json`` reports."""

MISSING_ARTIFACT = "missing_artifact"
"""There is no engine file."""
MISSING_MANIFEST = "missing_manifest"
"""There is an engine file, but no manifest beside it."""
UNREADABLE = "unreadable"
"""The engine or its manifest is there and cannot be read."""
MANIFEST_MALFORMED = "manifest_malformed"
"""The manifest is no JSON object, or a field is missing or of another type."""
MANIFEST_ALTERED = "manifest_altered"
"""The manifest is not byte for byte what was written: its own digest does not fit."""
SCHEMA = "schema"
"""The manifest was written by a version of this package with another schema."""
SIZE = "size"
"""The engine file's size is not the manifest's."""
HASH = "hash"
"""The engine file's SHA-256 is not the manifest's."""
MODEL = "model"
"""Made from another model than the one asked for."""
GRAPH = "graph"
"""Made from another graph than the model's."""
WEIGHTS = "weights"
"""Made from other weights than the model's."""
RUNTIME = "runtime"
"""Built by another runtime."""
VERSION = "version"
"""Built by another version of the runtime's library."""
COMPUTE_CAPABILITY = "compute_capability"
"""Built for another compute capability."""
DEVICE = "device"
"""Built for another device."""
PRECISION = "precision"
"""Built for another precision than the one asked for."""
SHAPES = "shapes"
"""Image size, K, or a tensor's name, shape or dtype is not what was asked for."""
CONFIG = "config"
"""Another build option (threshold, runtime option) than the one asked for."""
CACHE_KEY = "cache_key"
"""Something else that went into it differs, e.g. it was made by another package version."""
SIGNATURE = "signature"
"""A signature is required and missing, or it is not of the trusted key."""

ALL = (
    MISSING_ARTIFACT,
    MISSING_MANIFEST,
    UNREADABLE,
    MANIFEST_MALFORMED,
    MANIFEST_ALTERED,
    SCHEMA,
    SIZE,
    HASH,
    MODEL,
    GRAPH,
    WEIGHTS,
    RUNTIME,
    VERSION,
    COMPUTE_CAPABILITY,
    DEVICE,
    PRECISION,
    SHAPES,
    CONFIG,
    CACHE_KEY,
    SIGNATURE,
)

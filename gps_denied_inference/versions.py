"""Versions of what is installed."""

from __future__ import annotations

import importlib.metadata


def installed_version(distribution: str) -> str:
    """Return the version of an installed distribution, "" where it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""

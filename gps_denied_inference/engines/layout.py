"""How a cache folder is laid out, and what in it is this package's own.

A folder that engines are built into is marked with the file :data:`MARKER`; one that holds
nothing else also with a ``CACHEDIR.TAG`` (bford.info/cachedir), so that backups leave it out.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from gps_denied_inference.storage.writing import storage, write_durably

CACHE = "engine cache"
CACHE_ADVICE = "make room with 'gdi cache prune', or prepare engines with 'gdi compile' before"
"""What helps where it is full or read-only."""
STAGING = ".staging-"
RETIRED = ".retired-"
MARKER = ".gps_denied_inference_engines"
"""In a cache's root: this package builds engines here."""
PREPARED = "prepared"
"""In an engine's folder: made with ``gdi compile``, so never pruned."""
TAG = "CACHEDIR.TAG"

_TAG_TEXT = b"""Signature: 8a477f597d28d172789f06886806bc55
# Prepared engines of gps_denied_inference; 'gdi cache' lists and prunes them.
"""
_ENGINE = re.compile(r".+-[0-9a-f]{16}\Z")
_LEFT = re.compile(
    f"(?:{re.escape(STAGING)}|{re.escape(RETIRED)})(?P<name>.+-[0-9a-f]{{16}})-[0-9a-f]{{32}}\\Z"
)
_OWN_FILE = re.compile(rf"engine\.[^/]+\Z|{PREPARED}\Z")


def mark_root(root: Path) -> None:
    """Mark a folder as one that engines are built into.

    Raises:
        StorageError: it cannot be made, listed or written.
    """
    with storage(CACHE, root, "make", CACHE_ADVICE):
        root.mkdir(parents=True, exist_ok=True)
    with storage(CACHE, root, "write to", CACHE_ADVICE):
        if not (root / MARKER).is_file():
            write_durably(root / MARKER, b"")
        if not (root / TAG).exists() and all(_is_own(path.name) for path in root.iterdir()):
            write_durably(root / TAG, _TAG_TEXT)


def is_marked(root: Path) -> bool:
    """Return whether this package builds engines into the folder."""
    return (root / MARKER).is_file()


def is_engine_folder(path: Path) -> bool:
    """Return whether the name is an engine's and the path a folder, not a link to one."""
    return bool(_ENGINE.match(path.name)) and path.is_dir() and not path.is_symlink()


def is_own_file(path: Path) -> bool:
    """Return whether a file in an engine's folder is this package's."""
    return bool(_OWN_FILE.match(path.name)) and (path.is_file() or path.is_symlink())


def left_behind(root: Path) -> set[str]:
    """Return the names of the engines that killed builds left something of."""
    found = (_LEFT.match(path.name) for path in root.glob(".*-*"))
    return {match["name"] for match in found if match}


def sweep(root: Path, name: str) -> None:
    """Remove what builds of ``name`` left behind. The caller holds that engine's lock."""
    for path in root.glob(".*-*"):
        match = _LEFT.match(path.name)
        if match and match["name"] == name and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)


def _is_own(name: str) -> bool:
    engine = name.removesuffix(".lock")
    return name in (MARKER, TAG) or bool(_ENGINE.match(engine) or _LEFT.match(name))

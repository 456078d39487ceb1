"""Writing the JSON reports of the commands."""

from __future__ import annotations

import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from gps_denied_inference.errors import StorageError


def plain(value: Any) -> Any:
    """Return the value with numpy types and paths as plain ones, and NaN or infinity as None.

    JSON has no NaN: what was not measured is ``null`` in a report.
    """
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all (temporary file beside it, then a rename).

    Raises:
        StorageError: the folder cannot be made or written, or the disk is full.
    """
    path = Path(path)
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes it readable by its owner only
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
        reason = error.strerror or str(error)
        raise StorageError(f"cannot write {path}: {reason}") from error


def write_json(path: Path | str, data: Any) -> None:
    """Write a report as indented JSON, whole or not at all.

    Raises:
        StorageError: the folder cannot be made or written, or the disk is full.
    """
    write_text(Path(path), json.dumps(plain(data), indent=2, allow_nan=False) + "\n")

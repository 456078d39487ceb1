"""Writing the JSON reports of the commands."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from gps_denied_inference.storage.writing import write_file


def plain(value: object) -> Any:
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
    write_file(Path(path), text.encode("utf-8"), make_folder=True)


def write_json(path: Path | str, data: object) -> None:
    """Write a report as indented JSON, whole or not at all.

    Raises:
        StorageError: the folder cannot be made or written, or the disk is full.
    """
    write_text(Path(path), json.dumps(plain(data), indent=2, allow_nan=False) + "\n")

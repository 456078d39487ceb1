"""Reports are written whole, as strict JSON, or not at all."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from gps_denied_inference.errors import StorageError
from gps_denied_inference.storage.documents import plain, write_json


def test_numpy_paths_and_nan_become_plain_json(tmp_path: Path) -> None:
    data = {
        "array": np.array([1.5, np.nan], np.float32),
        "count": np.int64(3),
        "path": Path("a/b"),
        "pair": (math.inf, 1),
    }
    write_json(tmp_path / "new" / "report.json", data)
    assert json.loads((tmp_path / "new" / "report.json").read_text()) == {
        "array": [1.5, None],
        "count": 3,
        "path": "a/b",
        "pair": [None, 1],
    }


def test_a_failed_write_leaves_the_old_report(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_json(path, {"run": 1})
    with pytest.raises(TypeError):
        write_json(path, {"run": object()})
    assert json.loads(path.read_text()) == {"run": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.json"]


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write .*report.json"):
        write_json(tmp_path / "file" / "report.json", {})


def test_a_target_that_is_a_folder_leaves_nothing_half_written(tmp_path: Path) -> None:
    (tmp_path / "report.json").mkdir()
    with pytest.raises(StorageError):
        write_json(tmp_path / "report.json", {})
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.json"]


def test_plain_keeps_what_is_plain() -> None:
    assert plain({1: [True, None, "x", 2.0]}) == {"1": [True, None, "x", 2.0]}

"""``gdi models`` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gps_denied_inference.cli.main import main
from gps_denied_inference.models import zoo


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_list_names_every_model_and_its_licence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "models.json"
    assert main(["models", "list", "--json", str(report)]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    names = [*zoo.names(), "mutual_nearest_neighbour"]
    assert [line.split()[0] for line in lines] == names
    assert "runs in the node's process, not as an engine" in lines[-1]
    assert sum("in the node's process" in line for line in lines) == 1
    rows = json.loads(report.read_text())["models"]
    assert all(row["licence"] and row["origin"] for row in rows)
    assert not any(row["fetched"] for row in rows)
    assert [row["name"] for row in rows] == names
    assert [row["in_process"] for row in rows] == [False] * len(zoo.names()) + [True]
    assert len({frozenset(row) for row in rows}) == 1


def test_verify_finds_a_tampered_file(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "verify", "xfeat"]) == 0
    assert "graph ok, weights not fetched" in capsys.readouterr().out
    weights = zoo.get("xfeat").weights
    assert weights is not None
    path = zoo.weights_folder() / weights.file_name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"tampered")
    assert main(["models", "verify", "xfeat"]) == 1
    out = capsys.readouterr().out
    assert "run 'gdi models fetch xfeat'" in out
    assert "graph ok, weights bad" in out


def test_fetch_refuses_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "fetch", "nope"]) == 1
    assert main(["models", "fetch", "xfeat", "--from", str(tmp_path / "absent.pt")]) == 1
    wrong = tmp_path / "wrong.pt"
    wrong.write_bytes(b"another file")
    assert main(["models", "fetch", "xfeat", "--from", str(wrong)]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if "gdi: error" in line]
    assert len(errors) == 3
    assert "unknown model 'nope'" in errors[0]
    assert "no file at" in errors[1]
    assert "it was not kept" in errors[2]
    assert not list(zoo.weights_folder().iterdir())


def test_export_without_weights_says_how_to_get_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "export", "xfeat"]) == 1
    assert "run 'gdi models fetch xfeat'" in capsys.readouterr().err


def test_a_graph_that_was_exported_is_seen(capsys: pytest.CaptureFixture[str]) -> None:
    def row() -> list[str]:
        assert main(["models", "list"]) == 0
        return next(
            line for line in capsys.readouterr().out.splitlines() if "aliked-lightglue" in line
        ).split()

    assert "export" in row()
    path = zoo.exported_graph(zoo.get("aliked-lightglue"))
    assert path is not None
    path.parent.mkdir(parents=True)
    path.write_bytes(b"a graph")
    assert "exported" in row()
    assert main(["models", "verify", "aliked-lightglue"]) == 0
    assert "graph exported here, weights not fetched" in capsys.readouterr().out

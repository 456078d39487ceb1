"""tools/licences.py: a licence that nobody knows and a vulnerable version are found."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import licences
import pytest
from licences import Package, packages

ENTRY = {
    "id": "PYSEC-0000-1", "modified": "2026-01-02T03:04:05Z", "summary": "made up",
    "affected": [{
        "package": {"ecosystem": "PyPI", "name": "Made_Up"}, "versions": ["0.9"],
        "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "1.2"}, {"fixed": "1.4"},
                                                    {"introduced": "2.0"}]}],
    }],
}  # fmt: skip


def test_every_package_that_a_flight_needs_has_a_known_licence() -> None:
    found = {p.name: p for p in packages()}
    assert {"numpy", "onnxruntime", "opencv-python-headless", "cryptography"} <= set(found)
    flight = [p for p in found.values() if p.group != "ROS"]
    assert [p.name for p in flight if p.kind in ("unknown", "copyleft")] == []


@pytest.mark.parametrize(
    ("licence", "kind"),
    [
        ("MIT", "permissive"), ("Apache-2.0 OR GPL-3.0-only", "permissive"),
        ("MPL-2.0 AND MIT", "weak copyleft"), ("GNU Lesser General Public License v3 (LGPLv3)",
                                               "weak copyleft"),
        ("GPL-3.0-or-later", "copyleft"), ("AGPL-3.0", "copyleft"), ("", "unknown"),
        ("Proprietary", "unknown"),
    ],
)  # fmt: skip
def test_kinds(licence: str, kind: str) -> None:
    assert Package("made-up", "1", "flight", licence).kind == kind


@pytest.mark.parametrize(
    ("version", "hit"),
    [("0.9", True), ("1.0", False), ("1.2", True), ("1.3.9", True), ("1.4", False), ("2.1", True)],
)
def test_a_vulnerable_version_is_told(
    version: str, hit: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "all.zip"
    with zipfile.ZipFile(archive, "w") as files:
        files.writestr("PYSEC-0000-1.json", json.dumps(ENTRY))
        files.writestr("PYSEC-0000-2.json", json.dumps({**ENTRY, "withdrawn": "2026-01-03"}))
    found = licences.audit([Package("made-up", version, "flight", "MIT")], archive)
    assert found == ([f"made-up {version}: PYSEC-0000-1 made up"] if hit else [])
    assert "newest entry is of 2026-01-02T03:04:05Z" in capsys.readouterr().out


def test_an_unknown_licence_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(licences, "packages", lambda: [Package("made-up", "1", "flight", "")])
    assert licences.main([]) == 1
    assert "licence unknown: made-up" in capsys.readouterr().out

"""``gdi doctor --report``: what is measured on this machine, and what would not pass."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conformance_cases import find_weights

from gps_denied_inference.cli import machine_report
from gps_denied_inference.cli.main import main
from gps_denied_inference.models import zoo
from gps_denied_inference.pipeline.features import Features


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report of this machine, at one small size."""
    folder = tmp_path_factory.mktemp("report")
    file = folder / "report.json"
    weights = find_weights()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine_report, "SIZES", ((160, 128, 100),))
        patch.setattr(machine_report, "PASSES", 3)
        patch.setattr(platform, "node", lambda: "the-name-of-this-host")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        if weights is not None:  # as 'gdi models fetch' leaves them
            zoo.weights_folder().mkdir(parents=True)
            published = zoo.get("xfeat").weights
            assert published is not None
            shutil.copy(weights, zoo.weights_folder() / published.file_name)
        code = main(["doctor", "--report", str(file)])
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    found["exit_code"] = code
    return found


def test_every_runtime_that_works_is_checked_and_timed(written: dict[str, Any]) -> None:
    runs = {(run["runtime"], run["device"], run["precision"]): run for run in written["runs"]}
    assert ("onnxruntime", "cpu", "fp32") in runs
    works = {(row["runtime"], row["device"]) for row in written["runtimes"] if row["works"]}
    assert {(runtime, device) for runtime, device, _ in runs} >= works - {("fake", "cpu")}
    assert not [run for run in runs if run[0] == "fake"]
    for run in runs.values():
        assert run["error"] == ""
        if run["skipped"]:
            assert "gdi models fetch" in run["skipped"]
            continue
        assert all(run["checks"].values()), run
        assert 0.0 < run["p50_ms"] <= run["p95_ms"]
        assert run["ran_in"] == run["precision"]
        assert run["passes"] == 3
    assert written["exit_code"] == 0
    assert written["format"] == machine_report.FORMAT
    assert written["packages"]["numpy"] == np.__version__


def test_onnx_runtime_agrees_with_pytorch(written: dict[str, Any]) -> None:
    runs = {(run["runtime"], run["device"]): run for run in written["runs"]}
    reference = runs.get(("pytorch_fp32", "cpu"))
    if reference is None or reference["skipped"]:
        pytest.skip("PyTorch or its weights are not installed")
    found = runs["onnxruntime", "cpu"]["agreement"]
    assert found["with"] == "pytorch_fp32"
    assert found["agrees"]
    assert found["keypoints_found_again"] > 0.98
    assert "agreement" not in reference


def test_nothing_in_it_says_whose_machine_it_is(written: dict[str, Any]) -> None:
    text = json.dumps(written)
    assert str(Path.home()) not in text
    assert os.environ.get("XDG_CACHE_HOME", str(Path.home())) not in text
    assert "the-name-of-this-host" not in text


def features(count: int = 50) -> Features:
    rng = np.random.default_rng(3)
    descriptors = rng.normal(size=(count, 64)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    keypoints = (rng.random((count, 2)) * (150, 120)).astype(np.float32)
    return Features(keypoints, np.ones(count, np.float32), descriptors, 160, 128, "xfeat", "0" * 64)


def moved(by: float) -> Features:
    found = features()
    return dataclasses.replace(found, keypoints=found.keypoints + np.float32(by))


def turned() -> Features:
    found = features()
    return dataclasses.replace(found, descriptors=np.roll(found.descriptors, 1, axis=1))


@pytest.mark.parametrize(
    ("other", "agrees"),
    [(features(), True), (moved(0.5), True), (moved(4.0), False), (turned(), False)],
    ids=["same", "half_a_pixel", "elsewhere", "other_descriptors"],
)
def test_what_differs_disagrees(other: Features, agrees: bool) -> None:
    found = machine_report.agreement(features(), other, "fp32")
    assert found["agrees"] is agrees


def test_no_features_disagree() -> None:
    none = machine_report.agreement(features(), features(0), "fp16")
    assert none == {
        "keypoints": 0, "keypoints_found_again": 0.0, "median_cosine": 0.0, "agrees": False,
    }  # fmt: skip


def test_an_answer_that_changes_is_wrong() -> None:
    answers = iter([features(), features(0), moved(3.0)])
    checks, _ = machine_report.check(lambda image: next(answers), np.zeros((128, 160, 1), np.uint8))
    assert [name for name, passed in checks.items() if not passed] == ["same_answer_again"]


def test_a_runtime_that_fails_is_reported_and_fails_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine_report, "SIZES", ((160, 128, 5000),))  # more than a runtime takes
    file = tmp_path / "report.json"
    assert main(["doctor", "--report", str(file)]) == 1
    runs = json.loads(file.read_text(encoding="utf-8"))["runs"]
    assert runs
    assert all("max_keypoints" in run["error"] for run in runs if not run["skipped"])
    assert "max_keypoints" in capsys.readouterr().out

"""Signed engines in each other's place: a signature does not say that it was asked for."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("cryptography", reason="signatures need cryptography")

from node_process import UNCONFIGURED, Driver, NodeProcess, driven

from gps_denied_inference.cli.main import main
from gps_denied_inference.engines import cache as engine_cache
from gps_denied_inference.engines.manifest import EngineManifest, manifest_path

SIZE = {"image_width": 64, "image_height": 64, "max_keypoints": 20}


def prepare(model: str, folder: Path, key: Path) -> Path:
    """Compile and sign an engine of a model; return its file."""
    words = ["--runtime", "onnxruntime", "--device", "cpu", "--cache", str(folder)]
    words += ["--width", "64", "--height", "64", "--keypoints", "20"]
    assert main(["compile", model, *words]) == 0
    (engine,) = folder.glob(f"{model}-*/engine.onnx")
    assert main(["sign", str(engine), "--key", str(key)]) == 0
    return engine


def put(source: Path, target: Path) -> None:
    """Copy an engine and its manifest over another one."""
    shutil.copyfile(source, target)
    shutil.copyfile(manifest_path(source), manifest_path(target))


def refused(process: NodeProcess, driver: Driver) -> str:
    before = len(process.output)
    assert not driver.configure()
    assert driver.state() == UNCONFIGURED
    driver.wait_until(lambda: "ERROR" in process.output[before:], "an error line")
    (line,) = [line for line in process.output[before:].splitlines() if "ERROR" in line]
    return line


def test_swapped_signed_engines_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "flight.key"
    assert main(["sign", "--new-key", str(key)]) == 0
    cache = tmp_path / "engines"
    xfeat, aliked = prepare("xfeat", cache, key), prepare("aliked-t16", cache, key)
    with monkeypatch.context() as patch:
        patch.setattr(engine_cache, "installed_version", lambda name: "0.0.1")
        older = prepare("xfeat", tmp_path / "older", key)
    right = tmp_path / "right.onnx"
    put(xfeat, right)
    parameters = {
        "runtime": "onnxruntime",
        "device": "cpu",
        "threads": 1,
        "engine_policy": "load_only",
        "engine_cache_directory": str(cache),
        "require_signed_engines": True,
        "engine_public_key": f"{key}.pub",
        **SIZE,
    }
    put(aliked, xfeat)
    with driven(tmp_path, parameters=parameters) as (process, driver):
        line = refused(process, driver)
        assert "made from model 'aliked-t16', asked for is 'xfeat'" in line
        assert "[model, graph, weights" in line
        put(older, xfeat)
        line = refused(process, driver)
        assert "made by version 0.0.1 of this package" in line
        assert "[cache_key]" in line
        put(right, xfeat)
        assert driver.configure(), process.output
        status = driver.wait_for_status(lambda message: message.engine_sha256 != "", "engine")
        manifest = EngineManifest.from_json(manifest_path(xfeat).read_bytes())
        assert status.model == "xfeat"
        assert status.model_sha256 == manifest.weights_sha256
        assert status.engine_sha256 == manifest.artifact_sha256

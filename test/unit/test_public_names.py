"""What the packages promise in public is there, typed, and costs nothing until it is used."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import cv2
import pytest

from gps_denied_inference.images.files import read_image

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = [
    "gps_denied_inference",
    *(
        f"gps_denied_inference.{name}"
        for name in (
            "runtimes",
            "models",
            "engines",
            "pipeline",
            "thermal",
            "images",
            "maps",
            "autopilot",
        )
    ),
]


def source(package: str) -> ast.Module:
    path = ROOT.joinpath(*package.split("."), "__init__.py")
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_there_and_documented(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__doc__
    assert list(module.__all__) == sorted(set(module.__all__))
    for name in module.__all__:
        found = getattr(module, name)
        assert found.__doc__, f"{package}.{name}"
    with pytest.raises(AttributeError, match="has no attribute 'no_such_name'"):
        module.no_such_name  # noqa: B018


@pytest.mark.parametrize("package", PACKAGES)
def test_type_checkers_see_the_same_names(package: str) -> None:
    """The imports under TYPE_CHECKING, which only they follow, name the same homes."""
    module = importlib.import_module(package)
    seen = {
        alias.name: node.module
        for node in ast.walk(source(package))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(package)
        for alias in node.names
    }
    for name in module.__all__:
        if name in vars(module) and getattr(module, name).__module__ == package:
            continue  # defined there
        home = importlib.import_module(str(seen[name]))
        assert getattr(home, name) is getattr(module, name)


def test_importing_the_packages_loads_no_vendor_library() -> None:
    code = (
        "import sys, importlib\n"
        f"for name in {PACKAGES!r}: importlib.import_module(name)\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'tensorrt', 'cv2', 'rclpy', 'rasterio'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_the_package_says_that_it_is_typed() -> None:
    """A user's type checker reads our annotations where py.typed is installed beside them."""
    assert files("gps_denied_inference").joinpath("py.typed").is_file()
    package_data = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    assert "py.typed" in package_data.split("[options.package_data]")[1]


def test_the_reference_shows_every_package() -> None:
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert re.findall(r"^::: (\S+)$", text, re.MULTILINE) == PACKAGES


def test_the_script_in_the_reference_runs(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    image = read_image(ROOT / "gps_denied_inference" / "demo" / "data" / "landsat7_crop.png")
    for number in range(3):
        part = image[20 + 4 * number : 500 + 4 * number, 30:670]
        cv2.imwrite(str(tmp_path / "frames" / f"{number}.png"), part)
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    block = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[0]
    done = subprocess.run(
        [sys.executable, "-c", block],
        cwd=tmp_path,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    readback, *lines = done.stdout.splitlines()
    assert "runtime=" in readback
    found = [line.split() for line in lines]
    assert [name for name, *_ in found] == ["0.png", "1.png", "2.png"]
    assert all(int(features) > 50 and int(tracks) > 20 for _, features, tracks in found[1:]), found

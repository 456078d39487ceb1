"""Importing the package needs no vendor library and no ROS, and its registries need nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "gps_denied_inference"

VENDOR = [
    "torch",
    "torchvision",
    "kornia",
    "onnxruntime",
    "tensorrt",
    "tensorrt_rtx",
    "cuda",
    "jtop",
    "pynvml",
    "rasterio",
]
ROS = [
    "rclpy",
    "ament_index_python",
    "cv_bridge",
    "launch",
    "launch_ros",
    "std_msgs",
    "sensor_msgs",
    "geometry_msgs",
    "nav_msgs",
    "lifecycle_msgs",
    "diagnostic_msgs",
    "rcl_interfaces",
    "builtin_interfaces",
    "gps_denied_inference.msg",
]
HEAVY = [
    *("numpy", "cv2", "simplejpeg", "onnx", "matplotlib", "rosbags", "rich", "tqdm"),
    "cryptography",
]

REGISTRIES = [
    "gps_denied_inference",
    "gps_denied_inference.errors",
    "gps_denied_inference.runtimes",
    "gps_denied_inference.models.registry",
    "gps_denied_inference.engines",
    "gps_denied_inference.models",
    "gps_denied_inference.pipeline",
    "gps_denied_inference.thermal",
    "gps_denied_inference.cli",
    "gps_denied_inference.cli.main",
]

NEEDS_ITS_LIBRARY = {
    "gps_denied_inference.runtimes.onnx_runtime.session": "onnxruntime",
    "gps_denied_inference.runtimes.onnx_runtime.runtime": "onnxruntime",
    "gps_denied_inference.runtimes.pytorch.runtime": "torch",
    "gps_denied_inference.runtimes.pytorch.engine": "torch",
}
"""Modules that cannot be imported without a vendor library. Networks in torch are below."""

PROBE = """
import importlib, json, sys

blocked, modules = json.loads(sys.argv[1])

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if any(name == word or name.startswith(word + ".") for word in blocked):
            raise ImportError(f"{name} is blocked by this test", name=name)

sys.meta_path.insert(0, Blocker())
failed = {}
for name in modules:
    try:
        importlib.import_module(name)
    except ImportError as error:
        failed[name] = str(error)
print(json.dumps(failed))
"""


def probe(blocked: list[str], modules: list[str]) -> dict[str, str]:
    """Import modules in a fresh interpreter; return those that failed, with the reason."""
    result = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps([blocked, modules])],
        capture_output=True,
        text=True,
        check=False,
        cwd=PACKAGE.parent,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    failed: dict[str, str] = json.loads(result.stdout.splitlines()[-1])
    return failed


def modules_without_ros() -> list[str]:
    names = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        if {"node", "clients"} & set(parts) or "__pycache__" in parts:
            continue
        names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


def uses_torch(name: str) -> bool:
    """Whether a module of ``models`` is a network, which is torch by nature."""
    path = PACKAGE.parent / Path(*name.split(".")).with_suffix(".py")
    if not name.startswith("gps_denied_inference.models.") or not path.is_file():
        return False
    lines = path.read_text(encoding="utf-8").splitlines()
    return any(line.startswith(("import torch", "from torch")) for line in lines)


def test_registries_import_nothing() -> None:
    assert probe(VENDOR + ROS + HEAVY, REGISTRIES) == {}


def test_only_known_modules_need_a_vendor_library_and_none_outside_ros_needs_ros() -> None:
    failed = probe(VENDOR + ROS, modules_without_ros())
    surprising = {
        name: reason
        for name, reason in failed.items()
        if name not in NEEDS_ITS_LIBRARY
        and not (uses_torch(name) and "torch" in reason.partition(" is blocked")[0])
    }
    assert surprising == {}
    for name, library in NEEDS_ITS_LIBRARY.items():
        if name in failed:
            assert library in failed[name]


@pytest.mark.parametrize("name", ["onnxruntime", "pytorch_fp16", "tensorrt"])
def test_absent_library_is_a_typed_error_with_a_hint(name: str) -> None:
    code = f"""
import sys
from graphlib import TopologicalSorter
for word in ("torch", "onnxruntime", "tensorrt", "tensorrt_rtx"):
    sys.modules[word] = None  # import raises ImportError
from gps_denied_inference.errors import RuntimeUnavailableError
from gps_denied_inference.runtimes import create_runtime
from gps_denied_inference.runtimes.contract import BuildConfig, Model
try:
    runtime = create_runtime("{name}")
    runtime.compile_engine(Model("xfeat", "xfeat", "extractor", 64), BuildConfig(device="cuda"))
except RuntimeUnavailableError as error:
    assert error.hint, "no hint"
    print("hint:", error.hint)
"""
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=PACKAGE.parent,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    assert "install" in result.stdout


@pytest.mark.parametrize(
    ("library", "module"),
    [
        ("onnxruntime", "runtimes/onnx_runtime/session.py"),
        ("pynvml", "thermal/nvml_source.py"),
        ("jtop", "thermal/jtop_source.py"),
    ],
)
def test_a_vendor_library_is_imported_in_one_module(library: str, module: str) -> None:
    statements = (f"import {library}", f"from {library}")
    users = [
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if any(
            line.strip().startswith(statements)
            for line in path.read_text(encoding="utf-8").splitlines()
        )
    ]
    assert users == [module]


def test_torch_is_imported_by_networks_and_one_runtime_module() -> None:
    statements = ("import torch", "from torch")
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if any(
            line.strip().startswith(statements)
            for line in path.read_text(encoding="utf-8").splitlines()
        )
    }
    assert {name for name in users if not name.startswith("models/")} == {
        "runtimes/pytorch/engine.py"
    }


def test_no_file_imports_itself_by_way_of_others() -> None:
    """Imports for annotations alone count too; import-linter compares siblings only."""
    imports = grimp.build_graph(PACKAGE.name, cache_dir=None)
    files = {name: imports.find_modules_directly_imported_by(name) for name in imports.modules}
    assert len(files) > 100
    TopologicalSorter(files).prepare()  # CycleError names the circle

"""pyproject.toml names what the package imports and nothing else, and every other list agrees."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from gps_denied_inference.cli import doctor

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "requirements.py"


def requirements(*extras: str) -> set[str]:
    """Return the names of the packages, normalised."""
    command = [sys.executable, str(TOOL), *extras]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return {re.split(r"[^\w.-]", line)[0].lower().replace("_", "-") for line in lines}


def imported(folder: Path) -> set[str]:
    """Return the first names of everything that the Python files below a folder import."""
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found


def distributions(modules: set[str]) -> set[str]:
    """Return the installed distributions that bring these modules, normalised."""
    known = importlib.metadata.packages_distributions()
    return {
        name.lower().replace("_", "-").replace("ruamel.yaml", "ruamel-yaml")
        for module in modules
        for name in known.get(module, ())
    }


def test_every_package_that_is_named_is_imported() -> None:
    unused = requirements() - distributions(imported(ROOT / "gps_denied_inference"))
    assert unused == set()


def test_doctor_looks_for_what_a_flight_needs() -> None:
    named = requirements() - {
        "onnxruntime",
        "rosbags",
        "mcap",
        "matplotlib",
        "pillow",
    }  # not needed by every flight
    assert {name.replace("opencv-python-headless", "opencv") for name in named} == set(doctor.BASE)


@pytest.mark.parametrize("name", sorted(requirements()))
def test_the_ros_package_or_its_readme_names_it_too(name: str) -> None:
    package = ET.parse(ROOT / "package.xml").getroot()
    depends = {element.text or "" for element in package.iter("exec_depend")}
    key = "python3-" + {"opencv-python-headless": "opencv", "pillow": "pil"}.get(name, name)
    if depends & {key, f"{key}-pip"}:
        return
    # What rosdep does not know is installed by pip, wherever a ROS installation is set up.
    for page in ("README.md", "docker/Dockerfile.x86", ".github/workflows/build.yml"):
        lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
        assert any("pip install" in line and name in line.split() for line in lines), page


def test_an_extra_that_does_not_exist_is_refused() -> None:
    done = subprocess.run([sys.executable, str(TOOL), "tests"], capture_output=True, text=True)
    assert done.returncode != 0
    assert "no extra 'tests'" in done.stderr

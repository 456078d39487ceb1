"""Let ``pip install .`` deliver the whole package: the Python part and the generated messages.

The messages are made by the same CMakeLists.txt that colcon uses, so a ROS (a sourced one, or the
registry's wheels in the environment that pip runs in) has to be there. Without ROS, set
``GDI_WITHOUT_MESSAGES=1`` to install the core alone (engines, models, command line; no node).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

PACKAGE = "gps_denied_inference"
ROOT = Path(__file__).resolve().parent
WITHOUT_MESSAGES = os.environ.get("GDI_WITHOUT_MESSAGES") == "1"
# Inside the folder that pip builds in, and never taken for colcon's own build.
BUILD = ROOT / "build" / "pip"
STAGE = BUILD / "stage"


def ros_prefixes() -> list[str]:
    prefixes = [p for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    if not prefixes and Path(sys.prefix, "share", "rosidl_default_generators").is_dir():
        mend = [sys.executable, str(ROOT / "tools" / "mend_ros_wheels.py"), sys.prefix]
        subprocess.run(mend, check=True)
        prefixes = [sys.prefix]
    return prefixes


def build_messages() -> Path:
    """Run CMake into a staging prefix; return the staged Python package."""
    prefixes = ros_prefixes()
    if not prefixes:
        raise SystemExit(
            "gps_denied_inference: no ROS 2 to generate the messages with. Source one, or pip "
            "install requirements/ros-jazzy.txt first, or set GDI_WITHOUT_MESSAGES=1 to install "
            "the core without the node."
        )
    shutil.rmtree(BUILD, ignore_errors=True)
    environment = dict(os.environ, AMENT_PREFIX_PATH=os.pathsep.join(prefixes))
    # pip's build isolation hides the environment's packages, which the generators are made of.
    paths = [str(p) for prefix in prefixes for p in Path(prefix).glob("l*/python3*/*-packages")]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    for variable in ("PYTHONNOUSERSITE", "_ROS_WHEELS_BOOTSTRAP_COMPLETE"):
        environment.pop(variable, None)
    configure = [
        "cmake", "-S", str(ROOT), "-B", str(BUILD / "cmake"), f"-DCMAKE_INSTALL_PREFIX={STAGE}",
        f"-DPython3_EXECUTABLE={sys.executable}", "-DBUILD_TESTING=OFF",
        f"-DCMAKE_PREFIX_PATH={';'.join(prefixes)}",
    ]  # fmt: skip
    subprocess.run(configure, check=True, env=environment)
    build = ["cmake", "--build", str(BUILD / "cmake"), "--parallel", str(os.cpu_count() or 1)]
    subprocess.run(build, check=True, env=environment)
    install = ["cmake", "--install", str(BUILD / "cmake")]
    subprocess.run(install, check=True, env=environment)
    staged = list(STAGE.glob(f"**/{PACKAGE}/msg/__init__.py"))
    if len(staged) != 1:
        raise SystemExit(f"gps_denied_inference: expected one generated msg package, got {staged}")
    return staged[0].parent.parent


class BuildWithMessages(build_py):
    def run(self) -> None:
        super().run()
        if WITHOUT_MESSAGES:
            return
        package = build_messages()
        target = Path(self.build_lib, PACKAGE)
        shutil.copytree(package, target, dirs_exist_ok=True)
        # What is not Python (libraries, message sources, the ament index, launch files) goes to the
        # environment's prefix, where ament looks for it.
        self.distribution.data_files = [
            (str(path.parent.relative_to(STAGE)), [os.path.relpath(path, ROOT)])
            for path in sorted(STAGE.rglob("*"))
            if path.is_file() and package not in path.parents and "egg-info" not in str(path)
        ]


class PlatformDistribution(Distribution):
    def has_ext_modules(self) -> bool:
        return not WITHOUT_MESSAGES


setup(cmdclass={"build_py": BuildWithMessages}, distclass=PlatformDistribution)

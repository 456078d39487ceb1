"""A package from outside brings a runtime and a network, and a node flies on both."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from node_process import ROOT, driven

PACKAGE = ROOT / "test" / "support" / "outside_package"
# The frames' own aspect: nothing is padded, so no corner is left out.
SMALL = {"image_width": 128, "image_height": 96, "max_keypoints": 50, "detection_threshold": 0.1}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the package is installed into by pip, as into an environment of its own."""
    folder = tmp_path_factory.mktemp("outside")
    source = shutil.copytree(PACKAGE, folder / "source")  # pip leaves its build beside it
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation"]
    command += [
        "--no-index",
        "--disable-pip-version-check",
        "--target",
        str(folder / "site"),
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder / "site"


def paths(site: Path) -> dict[str, str]:
    return {"PYTHONPATH": f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}


def test_a_node_flies_on_a_runtime_and_a_network_from_outside(tmp_path: Path, site: Path) -> None:
    parameters = {**SMALL, "runtime": "onnx_reference", "model": "outside-corners"}
    with driven(tmp_path, parameters=parameters, environment=paths(site)) as (process, driver):
        assert driver.configure(), process.output
        assert driver.activate()
        answers = driver.publish_until_answered(3)
        assert all(answer.model == "outside-corners" for answer in answers)
        assert all(answer.count == 50 and answer.descriptor_dim == 16 for answer in answers)
        status = driver.wait_for_status(lambda s: s.frames_out >= 3, "three frames")
        assert (status.runtime, status.provider) == ("onnx_reference", "reference")


def test_without_the_package_its_names_are_refused(tmp_path: Path) -> None:
    with driven(tmp_path, parameters={**SMALL, "model": "outside-corners"}) as (process, driver):
        assert not driver.configure()
        assert "unknown model 'outside-corners'" in process.output

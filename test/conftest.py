"""Fixtures for every layer, and the isolation of everything that touches ROS.

Set before any test module is imported: discovery stays on this machine, and each pytest session has
a ROS domain of its own, so that neither a neighbour's robot nor a second test run is heard.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
# Domains 1..101 keep DDS's ports below the ephemeral range of Linux.
os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 101)
os.environ.setdefault("RCUTILS_COLORIZED_OUTPUT", "0")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real flights and images, which are too large for this repository.

    Named by ``GDI_TEST_DATA``, else ``../shared/data`` beside the repository.
    """
    named = os.environ.get("GDI_TEST_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no test data in {folder}: set GDI_TEST_DATA to the folder that holds it")
    return folder

"""Fixtures for every layer, and the isolation of everything that touches ROS.

Set before any test module is imported: discovery stays on this machine, and each pytest session has
a ROS domain of its own, so that neither a neighbour's robot nor a second test run is heard.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

ROOT = Path(__file__).resolve().parent.parent


def _own_domain() -> tuple[str, FileLock]:
    """Return a domain that no other pytest session here uses, and the lock that keeps it so.

    Domains 1..101 keep DDS's ports below the ephemeral range of Linux.
    """
    for step in range(101):
        domain = 1 + (os.getpid() + step) % 101
        lock = FileLock(Path(tempfile.gettempdir(), f"gdi_test_domain_{domain}.lock"))
        try:
            lock.acquire(timeout=0)
        except (Timeout, PermissionError):  # another session's, or another user's
            continue
        return str(domain), lock
    raise pytest.UsageError("101 test sessions run on this machine: no ROS domain is left")


os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["ROS_DOMAIN_ID"], _domain_lock = _own_domain()
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

"""Fixtures for every layer, and the isolation of everything that touches ROS.

Set before any test module is imported: discovery stays on this machine, and each pytest session has
ROS domains of its own, so that neither a neighbour's robot nor a second test run is heard.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import tempfile
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

# Hypothesis fails an example that takes 0.2 s of wall time, which any other load on the machine can
# make of one. What these tests ask is what comes out, not when.
with contextlib.suppress(ImportError):
    import hypothesis

    hypothesis.settings.register_profile("untimed", deadline=None)
    hypothesis.settings.load_profile("untimed")

ROOT = Path(__file__).resolve().parent.parent


@functools.cache
def ros_domain(layer: str) -> str:
    """Return a domain that nobody else on this machine tests in; a lock keeps it so.

    Each layer (folder of ``test/``) has its own: a node that a failed test in this process left
    behind answers discovery, and would be taken for the process of another test.
    Domains 1..101 keep DDS's ports below the ephemeral range of Linux.
    """
    for step in range(101):
        domain = 1 + (os.getpid() + step) % 101
        lock = FileLock(Path(tempfile.gettempdir(), f"gdi_test_domain_{domain}.lock"))
        if any(lock.lock_file == taken.lock_file for taken in _locks):
            continue
        try:
            lock.acquire(timeout=0)
        except (Timeout, PermissionError):  # another session's, or another user's
            continue
        _locks.append(lock)
        return str(domain)
    raise pytest.UsageError("101 test sessions run on this machine: no ROS domain is left")


_locks: list[FileLock] = []
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["ROS_DOMAIN_ID"] = ros_domain("collection")
os.environ.setdefault("RCUTILS_COLORIZED_OUTPUT", "0")
os.environ["GDI_FAKE_RUNTIME"] = "1"
# A shell starts background jobs with SIGINT ignored, and every process that a test starts would
# inherit that: Ctrl-C could not be tried on them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Put each layer into its own ROS domain."""
    layer = item.path.relative_to(ROOT / "test").parts[0]
    os.environ["ROS_DOMAIN_ID"] = ros_domain(layer)


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

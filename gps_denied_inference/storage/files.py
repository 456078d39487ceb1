"""Files that a user named: regular ones only, no larger than a bound, and never a wait.

Opening a named pipe waits for its other end, and a device has no end: both are refused before a
byte is read.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import BinaryIO

import platformdirs

from gps_denied_inference.errors import StorageError, TooLargeError

APPLICATION = "gps_denied_inference"
MAX_KEY_BYTES = 1 << 16
MAX_WEIGHTS_BYTES = 4 << 30
MAX_ENGINE_BYTES = 16 << 30
MAX_RECORDING_BYTES = 1 << 28


def user_path(text: str | Path, parameter: str = "") -> Path:
    """Return a path as a user wrote it (under ``parameter``), with ``~`` and ``~user`` replaced.

    Raises:
        StorageError: there is no such user, or no home folder.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise StorageError(
            f"{parameter} '{text}': there is no such home folder".lstrip()
        ) from error


def user_cache(*parts: str) -> Path:
    """Return a path in this package's cache folder, under ``$XDG_CACHE_HOME`` or ``~/.cache``.

    Raises:
        StorageError: there is no home folder and XDG_CACHE_HOME is no absolute path.
    """
    folder = platformdirs.user_cache_path(APPLICATION, appauthor=False)
    if not folder.is_absolute():  # a relative XDG_CACHE_HOME is to be ignored
        try:
            folder = Path.home() / ".cache" / APPLICATION
        except RuntimeError as error:
            raise StorageError("no home folder for the cache: set XDG_CACHE_HOME") from error
    return folder.joinpath(*parts)


def open_regular(path: Path, most: int) -> BinaryIO:
    """Open a regular file for reading.

    Args:
        path: the file; a link to one is fine.
        most: bytes that it may have.

    Raises:
        StorageError: no such file (``__cause__`` is the ``FileNotFoundError``), no regular file,
            or not readable.
        TooLargeError: it is larger than ``most``.
    """
    try:
        # Without O_NONBLOCK the opening of a pipe waits for its other end.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        reason = getattr(error, "strerror", None) or error
        raise StorageError(f"cannot read {path}: {reason}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise StorageError(f"cannot read {path}: it is no regular file")
        if status.st_size > most:
            raise TooLargeError(f"cannot read: {path} has {status.st_size} bytes, more than {most}")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def require_regular(path: Path, most: int = sys.maxsize) -> None:
    """Refuse what :func:`open_regular` refuses, and raise as it does."""
    open_regular(path, most).close()


def read_regular(path: Path, most: int) -> bytes:
    """Return the content of a regular file. Raises as :func:`open_regular` does."""
    with open_regular(path, most) as stream:
        try:
            data = stream.read(most + 1)
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > most:  # it grew meanwhile
        raise TooLargeError(f"cannot read: {path} has more than {most} bytes")
    return data

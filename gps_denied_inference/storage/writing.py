"""Durable writes, and what the file system refuses said in one line."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from gps_denied_inference.errors import StorageError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EROFS, errno.EACCES, errno.EPERM}


def write_durably(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: temporary file, fsync, atomic rename."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_file(path: Path, data: bytes, what: str = "", make_folder: bool = False) -> None:
    """Write a file, ``what`` it is to a user, whole or not at all.

    Raises:
        StorageError: the folder cannot be made or written, or the disk is full.
    """
    try:
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, data)
    except OSError as error:
        raise StorageError(
            f"cannot write {what}{what and ' '}{path}: {error.strerror or error}"
        ) from error


@contextlib.contextmanager
def storage(path: Path, doing: str) -> Iterator[None]:
    """Turn an ``OSError`` inside the block into a ``StorageError`` that names ``path``."""
    try:
        yield
    except OSError as error:
        raise storage_error(path, doing, error) from error


def storage_error(path: Path, doing: str, error: OSError) -> StorageError:
    """Say in one line what the file system refused and what to do about it."""
    if error.errno in _FULL:
        advice = "free space there, 'gdi cache prune', or choose another folder"
    elif error.errno in _DENIED:
        advice = "make it writable, choose another folder, or prepare engines beforehand"
    else:
        advice = "choose another folder"
    reason = error.strerror or str(error)
    return StorageError(f"cannot {doing} engine cache {path}: {reason}; {advice}")


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems sync no folders
            raise
    finally:
        os.close(descriptor)

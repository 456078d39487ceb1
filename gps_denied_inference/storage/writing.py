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


def write_durably(path: Path, data: bytes, mode: int = 0o666, *, new: bool = False) -> None:
    """Write a file whole or not at all: temporary file, fsync, atomic rename.

    Args:
        mode: rights that the file gets, less what the umask takes away.
        new: raise FileExistsError where there is a file of this name already.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        if new:
            _take_name(path, temporary)
        else:
            temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _take_name(path: Path, temporary: Path) -> None:
    """Give a file its name, where nothing has it yet."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # no hard links here (FAT): an empty file keeps the name for a moment
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        temporary.replace(path)
    else:
        temporary.unlink()


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


def write_new_file(path: Path, data: bytes, what: str, mode: int = 0o666) -> None:
    """Write a file as :func:`write_file` does, where there is none of this name yet.

    Raises:
        StorageError: there is one, the folder cannot be written, or the disk is full.
    """
    try:
        write_durably(path, data, mode, new=True)
    except FileExistsError as error:
        raise StorageError(f"{path} exists already: choose another name for {what}") from error
    except OSError as error:
        raise StorageError(f"cannot write {what} {path}: {error.strerror or error}") from error


@contextlib.contextmanager
def storage(what: str, path: Path, doing: str, advice: str = "") -> Iterator[None]:
    """Turn an ``OSError`` inside the block into a ``StorageError``, see :func:`storage_error`."""
    try:
        yield
    except OSError as error:
        raise storage_error(what, path, doing, error, advice) from error


def storage_error(
    what: str, path: Path, doing: str, error: OSError, advice: str = ""
) -> StorageError:
    """Say in one line what the file system refused and what to do about it.

    Args:
        what: what ``path`` is to a user, e.g. ``"engine cache"``.
        doing: what was to be done with it, e.g. ``"write to"``.
        advice: what else helps where the disk is full or the place read-only.
    """
    remedies = ["choose another folder"]
    if error.errno in _FULL:
        remedies = ["free space there", *remedies]
    elif error.errno in _DENIED:
        remedies = ["make it writable", *remedies]
    if advice and len(remedies) > 1:
        remedies.append(advice)
    reason = error.strerror or str(error)
    return StorageError(f"cannot {doing} {what} {path}: {reason}; {', or '.join(remedies)}")


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

"""Files that users name: special ones, huge ones and absent ones are refused without a wait."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs
import pytest

from gps_denied_inference.engines.signing import load_private_key, load_public_key
from gps_denied_inference.errors import (
    GpsDeniedInferenceError,
    InvalidParameterError,
    StorageError,
    TooLargeError,
)
from gps_denied_inference.models.zoo import resolve, sha256_of
from gps_denied_inference.storage.files import read_regular, user_cache, user_path
from gps_denied_inference.thermal.replay import load_recording


@pytest.fixture(params=["pipe", "device", "folder", "absent", "null", "large"])
def odd(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "named"
    if request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "device":
        return Path("/dev/zero")
    elif request.param == "folder":
        path.mkdir()
    elif request.param == "null":
        return Path("a\0b")
    elif request.param == "large":
        with path.open("wb") as stream:
            stream.truncate(5 << 30)
    return path


def test_refused_in_one_line(odd: Path) -> None:
    with pytest.raises(StorageError, match="cannot read") as raised:
        read_regular(odd, 1 << 20)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "reader",
    [load_public_key, load_private_key, sha256_of, load_recording],
    ids=lambda reader: reader.__name__,
)
def test_every_reader_refuses_them(odd: Path, reader) -> None:
    if reader in (load_public_key, load_private_key):
        pytest.importorskip("cryptography", reason="signatures need cryptography")
    with pytest.raises(GpsDeniedInferenceError, match="cannot"):
        reader(odd)


def test_the_bound_holds_to_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_regular(path, 5) == b"12345"
    with pytest.raises(TooLargeError, match="has 5 bytes, more than 4"):
        read_regular(path, 4)


def test_a_key_is_named_as_the_user_does(tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="signatures need cryptography")
    with pytest.raises(InvalidParameterError, match="'engine_public_key'"):
        load_public_key(tmp_path / "absent")


def test_the_home_of_nobody() -> None:
    with pytest.raises(StorageError, match="weights_file '~nosuchuser/x': there is no such home"):
        user_path("~nosuchuser/x", "weights_file")


def test_deep_json_is_no_recording(tmp_path: Path) -> None:
    path = tmp_path / "deep"
    path.write_text("[" * 200_000)
    with pytest.raises(GpsDeniedInferenceError, match="no thermal recording"):
        load_recording(path)


def test_cache_folder_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    # What platformdirs answers for a user whom no password file knows.
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda *_, **__: Path("~/.cache/x"))
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("none")))
    with pytest.raises(StorageError, match="set XDG_CACHE_HOME"):
        user_cache("weights")


def test_weights_that_are_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "weights.pt")
    with pytest.raises(GpsDeniedInferenceError, match="no regular file"):
        resolve("xfeat", weights=tmp_path / "weights.pt")

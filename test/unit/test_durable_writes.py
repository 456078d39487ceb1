"""One writer and one opener for all files: whole or not at all, and named for what they are."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest
import tensorrt_double as double

from gps_denied_inference.engines.cache import EngineCache
from gps_denied_inference.engines.signing import generate_keys, load_private_key, sign
from gps_denied_inference.errors import StorageError
from gps_denied_inference.models import zoo
from gps_denied_inference.runtimes.contract import BuildConfig
from gps_denied_inference.runtimes.gpus import Gpu, GpuSurvey
from gps_denied_inference.runtimes.tensorrt.runtime import TensorrtRuntime
from gps_denied_inference.storage.writing import write_new_file

PACKAGE = Path(__file__).resolve().parents[2] / "gps_denied_inference"
ORIN = GpuSurvey((Gpu(0, "Orin", "8.7", 1 << 35),), "12.6")


def build(folder: Path):
    runtime = TensorrtRuntime(
        cache=EngineCache(folder), module=double, gpus=ORIN, cuda=double.DoubleCuda
    )
    config = BuildConfig(height=64, width=96, max_keypoints=32, device="cuda", warmup_iterations=1)
    return runtime.compile_engine(zoo.resolve("xfeat"), config)


@pytest.fixture
def signatures():
    pytest.importorskip("cryptography", reason="signatures need cryptography")


def full(monkeypatch, name):
    """Have the disk be full once a file of this name, or its temporary one, is to be durable."""
    real = os.fsync

    def fsync(descriptor):
        if name in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.usefixtures("signatures")
def test_a_full_disk_while_signing_is_told_of_the_manifest(tmp_path, monkeypatch):
    generate_keys(tmp_path / "key.pem", tmp_path / "key.pub")
    entry = build(tmp_path / "cache")
    before = {path: path.read_bytes() for path in entry.artifact.parent.iterdir()}
    full(monkeypatch, "manifest")
    with pytest.raises(StorageError, match=r"the signed manifest .*: No space left") as raised:
        sign(entry.artifact, load_private_key(tmp_path / "key.pem"))
    assert "engine cache" not in str(raised.value)
    assert {path: path.read_bytes() for path in entry.artifact.parent.iterdir()} == before


@pytest.mark.usefixtures("signatures")
def test_a_full_disk_leaves_no_half_a_key(tmp_path, monkeypatch):
    full(monkeypatch, "key.pem")
    with pytest.raises(StorageError, match=r"cannot write the private key .*: No space left"):
        generate_keys(tmp_path / "key.pem", tmp_path / "key.pub")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("signatures")
def test_a_key_is_its_owners_and_replaces_none(tmp_path):
    generate_keys(tmp_path / "key.pem", tmp_path / "key.pub")
    assert (tmp_path / "key.pem").stat().st_mode & 0o777 == 0o600
    kept = (tmp_path / "key.pem").read_bytes()
    with pytest.raises(StorageError, match="exists already: choose another name"):
        generate_keys(tmp_path / "key.pem", tmp_path / "other.pub")
    with pytest.raises(StorageError, match="exists already"):
        write_new_file(tmp_path / "key.pem", b"", "the private key")
    assert (tmp_path / "key.pem").read_bytes() == kept


def test_a_full_disk_costs_the_timing_cache_alone(tmp_path, monkeypatch, caplog):
    full(monkeypatch, "sm8.7.cache")
    assert build(tmp_path).artifact.is_file()
    assert not list((tmp_path / ".timing").iterdir())
    assert re.search(r"cannot write the timing cache .*: No space left", caplog.text)


def test_a_pipe_in_place_of_the_timing_cache_is_not_waited_for(tmp_path):
    build(tmp_path)
    [cache] = (tmp_path / ".timing").iterdir()
    cache.unlink()
    os.mkfifo(cache)
    runtime = TensorrtRuntime(
        cache=EngineCache(tmp_path), policy="rebuild", module=double, gpus=ORIN,
        cuda=double.DoubleCuda,
    )  # fmt: skip
    config = BuildConfig(height=64, width=96, max_keypoints=32, device="cuda", warmup_iterations=1)
    runtime.compile_engine(zoo.resolve("xfeat"), config)
    assert cache.read_bytes() == b"learnt"


def test_what_a_builder_could_not_use_is_not_called_the_cache(tmp_path, monkeypatch):
    def build_engine(*_):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/opt/kernels.bin")

    monkeypatch.setattr("gps_denied_inference.runtimes.tensorrt.runtime.build_engine", build_engine)
    with pytest.raises(StorageError, match=r"cannot use file /opt/kernels\.bin: No such file"):
        build(tmp_path)


def test_regular_files_are_told_in_one_place():
    users = {
        str(file.relative_to(PACKAGE))
        for file in PACKAGE.rglob("*.py")
        if "S_ISREG" in file.read_text()
    }
    assert users == {"storage/files.py"}


@pytest.mark.parametrize("links", [True, False])
def test_a_new_file_has_its_name_and_its_content_at_once(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever dies on the way leaves no empty file that keeps the name."""
    path = tmp_path / "key.pem"
    seen: list[bool] = []
    sync = os.fsync

    def look(descriptor: int) -> None:
        seen.append(path.exists())
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    if not links:
        monkeypatch.setattr(os, "link", _refuse)
    write_new_file(path, b"secret", "the private key", 0o600)
    assert seen[0] is False
    assert path.read_bytes() == b"secret"
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(StorageError, match="exists already"):
        write_new_file(path, b"other", "the private key", 0o600)
    assert path.read_bytes() == b"secret"
    assert list(tmp_path.iterdir()) == [path]


def _refuse(*paths: object) -> None:
    raise PermissionError(1, "no hard links here")

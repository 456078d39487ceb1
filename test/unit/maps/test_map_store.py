"""A map on disk: whole, resumable, and refused where a byte of it has changed."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from gps_denied_inference.errors import InvalidParameterError, MapError, StorageError
from gps_denied_inference.maps.codec import encode
from gps_denied_inference.maps.descriptor import DIM, GlobalDescriptor
from gps_denied_inference.maps.store import CACHED_TILES, MapStore
from gps_denied_inference.maps.tiles import MapInfo, grid
from gps_denied_inference.maps.writer import MapWriter
from gps_denied_inference.pipeline.features import Features

INFO = MapInfo(
    lat0=47.0, lon0=8.0, model="xfeat", model_sha256="ab" * 32, max_keypoints=64,
    levels=(0.3, 0.6), tile_px=256, overlap=0.5, color="mono", detection_threshold=0.05,
    source="map.tif", source_sha256="cd" * 32, crs="EPSG:4326", attribution="made up",
    west=-150.0, south=-100.0, east=150.0, north=100.0,
)  # fmt: skip
ROOT = Path(__file__).resolve().parents[3]
LONG = os.environ.get("GDI_LONG_TESTS") == "1"


def features(seed: int, count: int = 40) -> Features:
    rng = np.random.default_rng(seed)
    descriptors = rng.normal(size=(count, 64)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    points = rng.uniform(0, 255, (count, 2)).astype(np.float32)
    scores = np.sort(rng.uniform(size=count).astype(np.float32))[::-1]
    return Features(points, scores, descriptors, 256, 256, "xfeat", INFO.model_sha256)


def descriptor() -> GlobalDescriptor:
    return GlobalDescriptor.train([features(seed) for seed in range(1, 6)])


def begin(writer: MapWriter) -> GlobalDescriptor:
    if writer.descriptor is None:
        writer.set_descriptor(descriptor())
    assert writer.descriptor is not None
    return writer.descriptor


def write(path: Path, info: MapInfo = INFO) -> str:
    places = grid(info)
    with MapWriter(path, info) as writer:
        describe = begin(writer).describe
        todo = [place for place in places if place.id not in writer.done]
        rows = [(p, features(p.id)) for p in todo if p.id % 7]
        writer.add(
            [(p, encode(p.id, f, describe(f))) for p, f in rows],
            [(p, "featureless") for p in todo if p.id % 7 == 0],
        )
        return writer.finish()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("map") / "finished.map"
    write(path)
    return path


def test_what_was_written_is_read(finished: Path) -> None:
    store = MapStore(finished)
    assert store.info == INFO
    assert store.tile_count == sum(1 for place in grid(INFO) if place.id % 7)
    for place, count in store.places():
        tile, truth = store.load(place.id), features(place.id)
        assert count == truth.count == tile.features.count
        assert np.abs(tile.features.keypoints - truth.keypoints).max() <= 1 / 64 + 1e-6
        cosine = np.sum(tile.features.descriptors * truth.descriptors, axis=1)
        assert cosine.min() > 0.9999
        assert np.allclose(np.linalg.norm(tile.features.descriptors, axis=1), 1.0, atol=1e-5)
        assert tile.features.model_sha256 == INFO.model_sha256
        assert (tile.gsd, tile.east, tile.north) == (place.gsd, place.east, place.north)
    ids, centres = store.centres(1)
    known, vectors = store.descriptors(1)
    assert (ids == known).all()
    assert vectors.shape == (len(ids), DIM)
    assert centres.shape == (len(ids), 2)
    for id, vector in zip(ids, vectors, strict=True):
        assert store.describe(features(int(id))) @ vector > 0.999
    with pytest.raises(InvalidParameterError, match="level"):
        store.centres(2)
    store.close()


def test_tiles_cover_the_bounds_and_overlap_by_half() -> None:
    for level, gsd in enumerate(INFO.levels):
        places = [place for place in grid(INFO) if place.level == level]
        side = INFO.tile_px * gsd
        assert min(p.east for p in places) <= INFO.west
        assert max(p.east + side for p in places) >= INFO.east
        assert max(p.north for p in places) >= INFO.north
        assert min(p.north - side for p in places) <= INFO.south
        easts = sorted({p.east for p in places})
        assert np.allclose(np.diff(easts), side / 2)


def test_places_and_geography_agree(finished: Path) -> None:
    info = MapStore(finished).info
    lat, lon = info.to_geodetic(0.0, 0.0)
    assert (lat, lon) == (pytest.approx(47.0), pytest.approx(8.0))
    east, north = info.to_enu(*info.to_geodetic(123.4, -56.7))
    assert (east, north) == (pytest.approx(123.4, abs=1e-6), pytest.approx(-56.7, abs=1e-6))
    assert info.to_geodetic(0.0, 1000.0)[0] == pytest.approx(47.0 + 1000.0 / 111_170.0, abs=1e-5)


def test_the_same_map_has_the_same_content_whatever_the_order(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.map")
    pieces = tmp_path / "pieces.map"
    places = list(grid(INFO))
    random.Random(3).shuffle(places)
    for start in range(0, len(places), 5):
        with MapWriter(pieces, INFO) as writer:
            describe = begin(writer).describe
            for place in places[start : start + 5]:
                if place.id % 7 == 0:
                    writer.add([], [(place, "featureless")])
                else:
                    f = features(place.id)
                    writer.add([(place, encode(place.id, f, describe(f)))])
    with pytest.raises(MapError, match="not finished"):
        MapStore(pieces)
    with MapWriter(pieces, INFO) as writer:
        assert writer.finish() == whole
    assert MapStore(pieces).sha256 == whole


@pytest.mark.parametrize(
    "change", [{"max_keypoints": 65}, {"model": "aliked-n16"}, {"model_sha256": "00" * 32}]
)
def test_a_map_for_another_model_or_k_is_refused_by_name(finished: Path, change: dict) -> None:
    before = finished.read_bytes()
    with pytest.raises(MapError, match="another map") as caught:
        MapWriter(finished, dataclasses.replace(INFO, **change))
    assert next(iter(change)) in str(caught.value)
    assert finished.read_bytes() == before


def rows(path: Path) -> list[list[tuple]]:
    """Return all that a map's tables hold."""
    base = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    try:
        return [
            base.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall()
            for name in ("meta", "tiles", "skipped")
        ]
    finally:
        base.close()


def test_flipped_bytes_are_refused(finished: Path, tmp_path: Path) -> None:
    data, rng = finished.read_bytes(), np.random.default_rng(4)
    refused = 0
    for _ in range(300 if LONG else 60):
        changed = bytearray(data)
        changed[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        path = tmp_path / "flipped.map"
        path.write_bytes(bytes(changed))
        try:
            store = MapStore(path)
            try:
                list(store.verify())
            finally:
                store.close()
        except (MapError, StorageError):
            refused += 1
            continue
        # A flip that changes nothing that is read: SQLite's free space and counters.
        assert rows(path) == rows(finished)
    assert refused > 0.6 * (300 if LONG else 60)


def test_files_that_are_no_map_are_one_line(tmp_path: Path, finished: Path) -> None:
    with pytest.raises(StorageError, match="no map at"):
        MapStore(tmp_path / "absent.map")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(StorageError, match="no regular file"):
        MapStore(tmp_path / "fifo")
    with pytest.raises(StorageError, match="no regular file"):
        MapStore(tmp_path)
    (tmp_path / "text").write_text("no database" * 1000)
    with pytest.raises(MapError, match="no map"):
        MapStore(tmp_path / "text")
    (tmp_path / "cut").write_bytes(finished.read_bytes()[:5000])
    with pytest.raises(MapError):
        list(MapStore(tmp_path / "cut").verify())
    with pytest.raises((MapError, StorageError)):
        MapWriter(tmp_path / "text", INFO)
    assert (tmp_path / "text").read_text().startswith("no database")


def test_json_that_never_ends_is_no_map(tmp_path: Path) -> None:
    path = tmp_path / "deep.map"
    with MapWriter(path, INFO):
        pass
    base = sqlite3.connect(path)
    base.execute("UPDATE meta SET value = ? WHERE key = 'info'", ("[" * 100_000,))
    base.commit()
    base.close()
    with pytest.raises(MapError, match="no map"):
        MapStore(path)


KILLED = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_map_store import INFO, begin, features
from gps_denied_inference.maps.codec import encode
from gps_denied_inference.maps.tiles import grid
from gps_denied_inference.maps.writer import MapWriter
with MapWriter(Path(sys.argv[1]), INFO) as writer:
    print("begun", flush=True)
    describe = begin(writer).describe
    for place in grid(INFO):
        if place.id in writer.done:
            continue
        if place.id % 7 == 0:
            writer.add([], [(place, "featureless")])
        else:
            f = features(place.id)
            writer.add([(place, encode(place.id, f, describe(f)))])
    print(writer.finish(), flush=True)
"""


def test_a_preparation_killed_at_any_moment_comes_to_the_same_map(
    finished: Path, tmp_path: Path
) -> None:
    path, rng = tmp_path / "killed.map", random.Random(5)
    command = [sys.executable, "-c", KILLED, str(path), str(Path(__file__).parent)]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH')}"}
    for _ in range(100 if LONG else 5):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "begun"
        time.sleep(rng.uniform(0.0, 0.12))
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    digest = done.stdout.split()[-1]
    assert digest == MapStore(finished).sha256
    assert len(list(MapStore(path).verify())) == MapStore(finished).tile_count


def test_a_full_disk_is_one_clear_line_and_the_map_goes_on_afterwards(
    finished: Path, tmp_path: Path
) -> None:
    import resource

    path = tmp_path / "full.map"
    code = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
from gps_denied_inference.errors import StorageError
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_map_store import write
try:
    write(Path(sys.argv[1]))
except StorageError as error:
    print("refused:", error)
"""
    assert resource.RLIMIT_FSIZE  # what stands in for a full disk: the kernel refuses the write
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH')}"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(Path(__file__).parent)],
        capture_output=True, text=True, env=environment, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("refused: cannot write map")
    assert "free space" in done.stdout
    assert write(path) == MapStore(finished).sha256


@pytest.mark.alone
def test_candidates_of_ten_thousand_tiles_take_ten_milliseconds(tmp_path: Path) -> None:
    from benchmarks import maps
    from gps_denied_inference.pipeline.localization.candidates import narrow

    store = maps.synthetic_map(tmp_path / "wide.map", 100, 8)
    try:
        assert store.tile_count == 10_000
        frame = maps.made_up(99, 1024, store.info)
        found = maps.time_candidates(store, frame, times=30)
        assert found.nowhere_s <= maps.LIMIT_S  # least of 30: holds on a busy machine too
        assert found.near_s <= found.nowhere_s
        # Which they are is right: a tile's own features name it first, without any prior.
        tile = store.load(4321)
        sight = SimpleNamespace(features=tile.features)
        chosen = narrow(store, 0, None, [sight], store.describe, 256)  # type: ignore[list-item]
        assert chosen[0] == 4321
        assert len(set(chosen.tolist())) == 256
    finally:
        store.close()


def test_what_a_map_says_of_itself_survives_json() -> None:
    assert MapInfo.from_json(INFO.to_json()) == INFO
    assert json.loads(INFO.to_json())["levels"] == [0.3, 0.6]
    for wrong in ({"levels": ()}, {"levels": (0.6, 0.3)}, {"tile_px": 100}, {"overlap": 0.9}):
        with pytest.raises(InvalidParameterError):
            dataclasses.replace(INFO, **wrong)


def test_tiles_are_loaded_before_they_are_asked_for(finished: Path) -> None:
    store = MapStore(finished)
    store.preload()
    loaded = store.load.cache_info()
    assert loaded.currsize == min(store.tile_count, CACHED_TILES)
    ids, _ = store.centres(0)
    store.load(int(ids[0]))
    assert store.load.cache_info().hits == loaded.hits + 1
    store.close()
    assert store.load.cache_info().currsize == 0


def test_a_map_that_was_closed_is_not_kept(tmp_path: Path) -> None:
    write(tmp_path / "a.map")
    store = MapStore(tmp_path / "a.map")
    ids, _ = store.centres(0)
    store.descriptors(0)
    tile, gone = weakref.ref(store.load(int(ids[0]))), weakref.ref(store)
    store.close()
    assert tile() is None
    del store
    gc.collect()
    assert gone() is None


def test_a_map_whose_first_write_was_cut_off_is_begun_anew(finished: Path, tmp_path: Path) -> None:
    """Power or process went while the first pages were written: the journal takes them back."""
    begun, path = tmp_path / "begun", tmp_path / "cut.map"
    base = sqlite3.connect(begun, isolation_level=None)
    base.execute("PRAGMA cache_size = 1")  # pages go to the file before the commit
    base.execute("BEGIN")
    base.execute("CREATE TABLE meta (name TEXT, value TEXT)")
    base.executemany("INSERT INTO meta VALUES (?, ?)", [(str(i), "x" * 999) for i in range(99)])
    for ending in ("", "-journal"):
        data = begun.with_name(begun.name + ending).read_bytes()
        assert data
        path.with_name(path.name + ending).write_bytes(data)
    base.close()
    assert write(path) == MapStore(finished).sha256

"""Whatever comes from outside is taken or refused by this package's own errors.

Each target gets good inputs, mutated. A run here takes seconds; ``make fuzz`` goes on for long with
each target, with another seed each time, and prints how many inputs it tried.
"""

from __future__ import annotations

import math
import shutil
import sqlite3
import struct
import time
from collections.abc import Callable
from pathlib import Path
from random import Random, SystemRandom
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from fuzzing import LONG, Fuzzer

from gps_denied_inference.autopilot.incoming import Telemetry
from gps_denied_inference.engines.cache import EngineCache
from gps_denied_inference.engines.manifest import EngineManifest
from gps_denied_inference.errors import GpsDeniedInferenceError
from gps_denied_inference.images.compressed import decode_image
from gps_denied_inference.maps.codec import encode
from gps_denied_inference.maps.descriptor import GlobalDescriptor
from gps_denied_inference.maps.store import MapStore
from gps_denied_inference.maps.tiles import MapInfo, grid
from gps_denied_inference.maps.writer import MapWriter
from gps_denied_inference.models import zoo
from gps_denied_inference.pipeline.camera import CameraModel
from gps_denied_inference.pipeline.features import Features
from gps_denied_inference.runtimes import create_runtime
from gps_denied_inference.runtimes.specs import BuildConfig

SPECIAL = (0, 1, 0x7F, 0x80, 0xFF)
FLOATS = (0.0, -0.0, 1.0, math.nan, math.inf, -math.inf, 5e-324, 1e-30, 1e30, 1.8e308)


def mutated(seeds: tuple[bytes, ...]) -> Callable[[Random], bytes]:
    """Return what makes good inputs with bytes set, cut out, repeated, put in, or their end cut."""

    def make(rng: Random) -> bytes:
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(max(1, len(data)))
            how = rng.choice(("set", "cut", "end", "repeat", "insert", "number"))
            if how == "set" and data:
                data[at] = rng.choice(SPECIAL) if rng.random() < 0.5 else rng.randrange(256)
            elif how == "cut":
                del data[at : at + rng.randint(1, 64)]
            elif how == "end":
                del data[at:]
            elif how == "repeat":
                data[at:at] = data[at : at + rng.randint(1, 64)]
            elif how == "insert":
                data[at:at] = rng.randbytes(rng.randint(0, 16))
            else:
                number = rng.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1))
                data[at : at + 4] = struct.pack(rng.choice("<>") + "I", number)
        return bytes(data)

    return make


def any_float(rng: Random) -> float:
    """Return a float of any kind: special, small, or any bits at all."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.choice(FLOATS)
    if kind == 1:
        return float(struct.unpack("<d", rng.randbytes(8))[0])
    return rng.uniform(-2000.0, 2000.0)


def fuzz(
    make: Callable[[Random], Any], target: Callable[[Any], None], examples: int = 2_000
) -> None:
    """Give ``target`` many inputs; it may raise nothing but this package's own errors.

    What fails is named by its seed, from which ``make(Random(seed))`` makes it again.
    """
    fuzzer = Fuzzer(target.__qualname__.split(".", 1)[0])
    first = SystemRandom().getrandbits(64) if LONG else 0

    def play(count: int) -> None:
        for _ in range(count):
            seed = first + fuzzer.count
            fuzzer.count += 1
            value = make(Random(seed))
            try:
                target(value)
            except GpsDeniedInferenceError as error:
                line = str(error)
                assert line, f"seed {seed}: no line: {value!r:.2000}"
                assert "\n" not in line, f"seed {seed}: {line!r}"
            except BaseException as error:
                raise AssertionError(f"seed {seed}: {error!r} of {value!r:.2000}") from error

    fuzzer.run(play, examples)
    assert fuzzer.count >= examples


def pictures() -> tuple[bytes, ...]:
    bgr = cv2.GaussianBlur(
        np.random.default_rng(3).integers(0, 256, (24, 36, 3), dtype=np.uint8), (0, 0), 2
    )
    kinds = (".jpg", ".png", ".tiff", ".bmp", ".webp", ".ppm", ".pgm")
    files = [cv2.imencode(k, bgr if k != ".pgm" else bgr[..., 1])[1].tobytes() for k in kinds]
    files.append(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes())
    files.append(cv2.imencode(".png", bgr[..., 0].astype(np.uint16) * 200)[1].tobytes())
    return tuple(files)


def test_images() -> None:
    def target(data: bytes) -> None:
        for color in ("mono", "rgb"):
            image = decode_image(data, color, max_pixels=1_000_000)
            assert image.dtype == np.uint8
            assert image.shape[0] * image.shape[1] <= 1_000_000

    fuzz(mutated(pictures()), target)


def test_manifests(tmp_path: Path) -> None:
    runtime = create_runtime("fake", cache=EngineCache(tmp_path))
    entry = runtime.compile_engine(zoo.resolve("xfeat"), BuildConfig(height=64, width=64))
    good = entry.manifest.to_json()

    def target(data: bytes) -> None:
        assert isinstance(EngineManifest.from_json(data), EngineManifest)

    fuzz(mutated((good,)), target)


INFO = MapInfo(
    lat0=47.0, lon0=8.0, model="xfeat", model_sha256="ab" * 32, max_keypoints=16,
    levels=(0.3,), tile_px=256, overlap=0.5, color="mono", detection_threshold=0.05,
    source="map.tif", source_sha256="cd" * 32, crs="EPSG:4326", attribution="made up",
    west=-40.0, south=-40.0, east=40.0, north=40.0,
)  # fmt: skip


def some_features(seed: int, count: int = 16) -> Features:
    rng = np.random.default_rng(seed)
    descriptors = rng.normal(size=(count, 64)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    points = rng.uniform(0, 255, (count, 2)).astype(np.float32)
    scores = np.sort(rng.uniform(size=count).astype(np.float32))[::-1]
    return Features(points, scores, descriptors, 256, 256, "xfeat", INFO.model_sha256)


@pytest.fixture(scope="module")
def map_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("map") / "good.gdimap"
    describe = GlobalDescriptor.train([some_features(seed) for seed in range(1, 6)])
    with MapWriter(path, INFO) as writer:
        writer.set_descriptor(describe)
        places = grid(INFO)
        writer.add(
            [(p, encode(p.id, f, describe.describe(f)))
             for p, f in ((p, some_features(p.id)) for p in places)], [],
        )  # fmt: skip
        writer.finish()
    return path


def look_through(path: Path) -> None:
    store = MapStore(path)
    try:
        assert store.info.model
        for place in grid(INFO):
            store.load(place.id)
        for level in range(len(store.info.levels)):
            assert len(store.descriptors(level)[0]) == len(store.centres(level)[0])
        assert len(list(store.verify())) == store.tile_count
    finally:
        store.close()


def test_map_files(tmp_path: Path, map_file: Path) -> None:
    path = tmp_path / "map.gdimap"
    good = map_file.read_bytes()
    path.write_bytes(good)
    look_through(path)

    def target(data: bytes) -> None:
        path.write_bytes(data)
        look_through(path)

    fuzz(mutated((good,)), target, 300)


def test_what_a_damaged_map_holds_is_quoted_on_one_line(tmp_path: Path, map_file: Path) -> None:
    path = tmp_path / "map.gdimap"
    shutil.copyfile(map_file, path)
    with sqlite3.connect(path) as base:
        base.execute("UPDATE meta SET value = CAST(x'630a1b5b326aff' AS TEXT)")
    base.close()
    with pytest.raises(GpsDeniedInferenceError) as caught:
        MapStore(path)
    assert str(caught.value).isprintable()


def test_map_contents(tmp_path: Path, map_file: Path) -> None:
    """A database that is whole, with values in it that are not what they were."""
    path = tmp_path / "map.gdimap"
    base = sqlite3.connect(map_file)
    keys = {"meta": "key", "tiles": "id"}
    cells = [
        (table, row[1], value[0])
        for table, key in keys.items()
        for row in base.execute(f"PRAGMA table_info({table})")
        for value in base.execute(f"SELECT {key} FROM {table} ORDER BY {key}").fetchall()
    ]
    base.close()
    texts = ("{}", "[]", "null", "NaN", "1e999", '{"a":1}')

    def make(rng: Random) -> tuple[tuple[str, str, Any], Any]:
        value: Any = rng.choice(
            (
                None, rng.randrange(-(2**63), 2**63), any_float(rng), rng.choice(texts),
                rng.randbytes(rng.randint(0, 64)),
                "".join(chr(rng.randrange(0xFFFF)) for _ in range(rng.randint(0, 20))),
            )
        )  # fmt: skip
        return rng.choice(cells), value

    def target(change: tuple[tuple[str, str, Any], Any]) -> None:
        (table, column, row), value = change
        shutil.copyfile(map_file, path)
        base = sqlite3.connect(path)
        query = f"UPDATE {table} SET {column} = ? WHERE {keys[table]} = ?"
        try:
            base.execute("PRAGMA synchronous = OFF")
            assert base.execute(query, (value, row)).rowcount == 1
            base.commit()
        except (sqlite3.IntegrityError, UnicodeEncodeError):
            return  # SQLite does not store that there
        finally:
            base.close()
        look_through(path)

    fuzz(make, target, 300)


def test_camera_infos() -> None:
    models = ("plumb_bob", "rational_polynomial", "equidistant", "fisheye", "", "none", "x" * 50)

    def make(rng: Random) -> SimpleNamespace:
        def size() -> int:
            return rng.choice((0, 320, 240, rng.randrange(2**32)))

        def numbers(count: int) -> list[float]:
            return [any_float(rng) for _ in range(count)]

        likely = [
            rng.uniform(1.0, 1e3),
            0.0,
            160.0,
            0.0,
            rng.uniform(1.0, 1e3),
            120.0,
            0.0,
            0.0,
            1.0,
        ]
        if rng.random() < 0.5:
            likely[rng.randrange(9)] = any_float(rng)
        return SimpleNamespace(
            width=size(), height=size(), distortion_model=rng.choice(models),
            d=numbers(rng.randint(0, 15)), k=rng.choice((likely, numbers(9))), r=numbers(9),
            p=numbers(12), binning_x=size(), binning_y=size(),
            roi=SimpleNamespace(x_offset=size(), y_offset=size(), width=size(), height=size(),
                                do_rectify=rng.random() < 0.5),
        )  # fmt: skip

    points = np.array([[0.0, 0.0], [160.0, 120.0], [319.0, 239.0]], np.float32)

    def target(message: Any) -> None:
        roi = message.roi
        camera = CameraModel.from_info(
            message.distortion_model, message.k, message.d, message.width, message.height,
            binning=(message.binning_x, message.binning_y),
            roi=(roi.x_offset, roi.y_offset, roi.width, roi.height),
        )  # fmt: skip
        assert camera.undistort(points).shape == (3, 2)

    with np.errstate(all="ignore"):
        fuzz(make, target)


def test_mavlink() -> None:
    dialect = pytest.importorskip("pymavlink.dialects.v20.ardupilotmega")
    makers: dict[str, Any] = {
        name: getattr(dialect, f"MAVLink_{name.lower()}_message")
        for name in ("HEARTBEAT", "ATTITUDE", "ATTITUDE_QUATERNION", "GLOBAL_POSITION_INT",
                     "GPS_RAW_INT", "ALTITUDE", "DISTANCE_SENSOR", "TERRAIN_REPORT",
                     "ESTIMATOR_STATUS", "EKF_STATUS_REPORT", "COMMAND_ACK")
    }  # fmt: skip

    def target(made: tuple[str, bytes, bytes]) -> None:
        name, payload, noise = made
        telemetry, parser = Telemetry(), dialect.MAVLink(None)
        parser.robust_parsing = True
        kind = makers[name]
        size = struct.calcsize(kind.unpacker.format)
        frame = _frame(dialect, kind, payload.ljust(size, b"\0")[:size])
        for data in (frame, noise, frame[: len(frame) // 2], frame):
            for parsed in parser.parse_buffer(bytearray(data)) or ():
                telemetry.take(parsed, time.monotonic_ns())

    names = sorted(makers)

    def make(rng: Random) -> tuple[str, bytes, bytes]:
        payload = rng.choice((rng.randbytes(rng.randint(0, 80)), b"\xff" * 80, b"\x7f" * 80))
        return rng.choice(names), payload, rng.randbytes(rng.randint(0, 300))

    fuzz(make, target, 1_000)


def _frame(dialect: Any, kind: Any, payload: bytes) -> bytes:
    """Return a MAVLink 2 packet with a right checksum around any payload."""
    body = struct.pack("<BBBBBBB", len(payload), 0, 0, 0, 1, 1, kind.id & 0xFF)
    body += struct.pack("<H", kind.id >> 8) + payload
    check = dialect.x25crc(bytearray(body))
    check.accumulate(bytearray([kind.crc_extra]))
    return b"\xfd" + body + struct.pack("<H", check.crc)

"""Configurations that cannot be: one clear line each, the node lives, and a retry works."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from node_process import ACTIVE, INACTIVE, UNCONFIGURED, Driver, NodeProcess, driven
from rcl_interfaces.msg import ParameterType, ParameterValue

SMALL = {"image_width": 320, "image_height": 256, "max_keypoints": 100, "threads": 1}
REAL = {"runtime": "onnxruntime", "device": "cpu", **SMALL}


def text(value: str) -> ParameterValue:
    return ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=value)


def integer(value: int) -> ParameterValue:
    return ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=value)


def refuse(process: NodeProcess, driver: Driver, *words: str) -> str:
    """Configure, which has to fail with one ERROR line that has the words; return that line."""
    before = len(process.output)
    assert not driver.configure()
    assert driver.state() == UNCONFIGURED
    driver.wait_until(lambda: "ERROR" in process.output[before:], "an error line")
    lines = [line for line in process.output[before:].splitlines() if "ERROR" in line]
    assert len(lines) == 1, lines
    for word in words:
        assert word in lines[0], f"'{word}' is not in: {lines[0]}"
    assert "Traceback" not in process.output
    return lines[0]


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"model": "no_such_model"}, ("no_such_model", "xfeat")),
        # No GPU of this number anywhere: named as missing, with what mends it.
        (
            {"runtime": "onnxruntime", "device": "cuda:63"},
            ("onnxruntime (cuda): ", "cuda:63", "; "),
        ),
        ({"runtime": "tensorrt", "device": "cuda:63"}, ("tensorrt (cuda): ", "cuda:63", "; ")),
        ({"runtime": "auto", "device": "cuda:63"}, ("tensorrt (", "onnxruntime (", "cuda:63")),
        ({"matcher": "no_such_matcher", "task": "match"}, ("no_such_matcher",)),
        ({"weights_file": "/no/such/file.pt", "runtime": "pytorch_fp32"}, ("/no/such/file.pt",)),
        ({"task": "match", "reference_file": "/no/such/map.png"}, ("/no/such/map.png",)),
        ({"engine_policy": "load_only"}, ("load_only",)),
        ({"require_signed_engines": True}, ("sign",)),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else None,
)
def test_configure_is_refused_and_can_be_retried(
    tmp_path: Path, parameters: dict[str, object], words: tuple[str, ...]
) -> None:
    if parameters.get("runtime") == "pytorch_fp32":
        pytest.importorskip("torch", reason="torch is not installed")
    with driven(tmp_path, parameters={**REAL, **parameters}) as (process, driver):
        refuse(process, driver, *words)
        # The same again is refused again; nothing is left half-made.
        refuse(process, driver, *words)
        for name in parameters:
            if isinstance(parameters[name], bool):
                value = ParameterValue(type=ParameterType.PARAMETER_BOOL, bool_value=False)
            else:
                good = {
                    "model": "xfeat",
                    "runtime": "onnxruntime",
                    "device": "cpu",
                    "matcher": "mutual_nearest_neighbour",
                    "task": "extract",
                    "weights_file": "",
                    "reference_file": "",
                    "engine_policy": "build_if_needed",
                }
                value = text(good[name])
            taken, reason = driver.set_parameter(name, value)
            assert taken, reason
        assert driver.configure(), process.output
        assert driver.activate()
        driver.publish_until_answered(2)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("max_keypoints", integer(0), ("max_keypoints", "0", "3840")),
        ("max_keypoints", integer(3841), ("max_keypoints", "3841", "3840")),
        ("max_keypoints", text("many"), ("max_keypoints", "'many'", "integer", "string", "3840")),
        ("frame_rate_limit", integer(5), ("frame_rate_limit", "5", "double", "integer")),
        ("task", ParameterValue(), ("task", "string", "unset")),  # ros2 param delete
        ("task", text("dream"), ("task", "dream", "extract")),
        ("image_width", integer(-32), ("image_width", "-32")),
    ],
)
def test_a_bad_value_is_refused_when_it_is_set(
    tmp_path: Path, name: str, value: ParameterValue, words: tuple[str, ...]
) -> None:
    with driven(tmp_path, parameters={"runtime": "fake"}) as (process, driver):
        taken, reason = driver.set_parameter(name, value)
        assert not taken
        for word in words:
            assert word in reason, reason
        assert driver.configure(), process.output


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"max_keypoints": 0}, ("max_keypoints", "0")),
        ({"max_keypoints": "many"}, ("max_keypoints", "integer", "string")),
        ({"task": "dream"}, ("task", "dream")),
        ({"frame_rate_limit": "fast"}, ("frame_rate_limit",)),
    ],
)
def test_a_bad_value_in_the_parameter_file(
    tmp_path: Path, parameters: dict[str, object], words: tuple[str, ...]
) -> None:
    """The node starts, since it may be mended by setting the parameter, but is not configured."""
    with driven(tmp_path, parameters=parameters) as (process, driver):
        refuse(process, driver, *words)


def prepared_engine(folder: Path, parameters: dict[str, object]) -> Path:
    """Let a node build its engine; return the artefact."""
    with driven(folder, parameters=parameters) as (process, driver):
        assert driver.configure(), process.output
        assert driver.shutdown()
        assert process.wait_for_exit(5) == 0
    cache = Path(str(parameters["engine_cache_directory"]))
    artefacts = [p for p in cache.rglob("*") if p.suffix in (".onnx", ".ort") and p.is_file()]
    assert len(artefacts) == 1, artefacts
    return artefacts[0]


@pytest.mark.parametrize("damage", ["one_byte", "truncated", "empty"])
def test_a_damaged_engine_never_flies(tmp_path: Path, damage: str) -> None:
    cache = tmp_path / "engines"
    parameters = {**REAL, "engine_cache_directory": str(cache)}
    engine = prepared_engine(tmp_path, parameters)
    data = bytearray(engine.read_bytes())
    if damage == "one_byte":
        data[len(data) // 2] ^= 1
    engine.write_bytes({"truncated": data[: len(data) // 2], "empty": b""}.get(damage, data))
    with driven(tmp_path, parameters={**parameters, "engine_policy": "load_only"}) as (
        process,
        driver,
    ):
        refuse(process, driver, engine.name)
        taken, reason = driver.set_parameter("engine_policy", text("build_if_needed"))
        assert taken, reason
        assert driver.configure(), process.output
        assert driver.state() == INACTIVE


def test_an_unwritable_cache_is_one_clear_line(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("a file where a folder should be")
    parameters = {**REAL, "engine_cache_directory": str(blocked / "engines")}
    with driven(tmp_path, parameters=parameters) as (process, driver):
        refuse(process, driver, str(blocked))
        taken, reason = driver.set_parameter("engine_cache_directory", text(str(tmp_path / "ok")))
        assert taken, reason
        assert driver.configure(), process.output


def test_read_only_parameters_are_kept_while_configured(tmp_path: Path) -> None:
    with driven(tmp_path, parameters={"runtime": "fake"}) as (process, driver):
        assert driver.configure(), process.output
        taken, reason = driver.set_parameter("max_keypoints", integer(10))
        assert not taken
        assert "max_keypoints" in reason
        assert driver.activate()
        assert driver.state() == ACTIVE

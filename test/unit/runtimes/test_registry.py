"""The table of runtimes."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator

import pytest

from gps_denied_inference import runtimes
from gps_denied_inference.errors import (
    InvalidParameterError,
    RegistrationError,
    RuntimeUnavailableError,
    UnknownNameError,
)
from gps_denied_inference.runtimes import table
from gps_denied_inference.runtimes.contract import InferenceRuntime
from gps_denied_inference.runtimes.fake import FakeRuntime
from gps_denied_inference.settings import Settings

ODD = table.RuntimeRow("odd", "gps_denied_inference.runtimes.fake:FakeRuntime", "")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = dict(table._registered)
    yield
    table._registered.clear()
    table._registered.update(before)
    table._installed.cache_clear()


def install(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    """Let the interpreter see entry points, as an installed package's metadata would."""
    points = [
        importlib.metadata.EntryPoint(name, value, table.ENTRY_POINTS)
        for name, value in values.items()
    ]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)
    table._installed.cache_clear()


def test_names_of_the_shipped_runtimes() -> None:
    assert runtimes.runtime_names() == (
        "fake",
        "onnxruntime",
        "pytorch",
        "pytorch_fp16",
        "pytorch_fp32",
        "tensorrt",
    )
    assert all(row.hint for row in table.rows())


def test_the_fake_runtime_exists_only_where_its_switch_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GDI_FAKE_RUNTIME")
    assert "fake" not in runtimes.runtime_names()
    with pytest.raises(UnknownNameError):
        runtimes.create_runtime("fake")
    with pytest.raises(InvalidParameterError, match="runtime"):
        Settings.from_mapping({"runtime": "fake"})


def test_creates_a_runtime_by_name() -> None:
    runtime = runtimes.create_runtime("fake", policy="load_only")
    assert isinstance(runtime, InferenceRuntime)
    assert runtime.current_runtime_label() == "fake"


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown runtime 'onnx'.*onnxruntime"):
        runtimes.create_runtime("onnx")


def test_missing_library_says_what_to_install() -> None:
    runtimes.register_runtime("odd", "no_such_vendor_library:Odd", "install it with 'pip odd'")
    with pytest.raises(RuntimeUnavailableError, match=r"no_such_vendor_library.*pip odd") as raised:
        runtimes.create_runtime("odd")
    assert isinstance(raised.value.__cause__, ImportError)
    assert raised.value.hint == "install it with 'pip odd'"


def test_a_registered_runtime_may_be_asked_for_in_the_settings() -> None:
    with pytest.raises(InvalidParameterError, match="runtime"):
        Settings.from_mapping({"runtime": "odd"})
    runtimes.register_runtime(ODD.name, ODD.target, "")
    assert Settings.from_mapping({"runtime": "odd"}).runtime == "odd"


def test_same_registration_twice_is_fine_and_a_collision_is_refused() -> None:
    runtimes.register_runtime("odd", "a.b:C", "")
    runtimes.register_runtime("odd", "a.b:C", "")
    with pytest.raises(RegistrationError, match=r"a.b:C already"):
        runtimes.register_runtime("odd", "a.b:D", "")


@pytest.mark.parametrize("target", ["", "a.b", "a.b:", ":C"])
def test_target_must_name_module_and_class(target: str) -> None:
    with pytest.raises(RegistrationError, match=r"module:Class"):
        runtimes.register_runtime("odd", target, "")


def test_refused_policy_names_the_choices() -> None:
    with pytest.raises(InvalidParameterError, match=r"load_only"):
        runtimes.create_runtime("fake", policy="sometimes")


def test_an_installed_package_brings_a_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, odd=f"{__name__}:ODD")
    monkeypatch.setitem(__import__("sys").modules, __name__, __import__("types").SimpleNamespace(
        ODD=ODD
    ))  # fmt: skip
    assert "odd" in runtimes.runtime_names()
    assert isinstance(runtimes.create_runtime("odd"), FakeRuntime)
    assert "odd" not in table.documented_names()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("no_such_package.row:ROW", "No module named 'no_such_package'"),
        ("math:pi", "is no RuntimeRow"),
    ],
)
def test_a_broken_entry_point_harms_nobody_else_and_says_why(
    monkeypatch: pytest.MonkeyPatch, value: str, reason: str
) -> None:
    install(monkeypatch, odd=value)
    assert "onnxruntime" in runtimes.runtime_names()
    with pytest.raises(RuntimeUnavailableError, match=reason):
        runtimes.create_runtime("odd")


def test_an_installed_package_cannot_take_the_name_of_another_runtime(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, sneaky="gps_denied_inference.runtimes.table:_BUILT_IN")
    taken = table.RuntimeRow("onnxruntime", "evil:Runtime", "")
    monkeypatch.setattr(importlib.metadata.EntryPoint, "load", lambda self: taken)
    table._installed.cache_clear()
    assert table.find("onnxruntime")[0].target != "evil:Runtime"
    with pytest.raises(RuntimeUnavailableError, match="takes the name of another runtime"):
        table.find("sneaky")

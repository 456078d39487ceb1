"""The registry of runtimes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gps_denied_inference import runtimes
from gps_denied_inference.errors import (
    InvalidParameterError,
    RegistrationError,
    RuntimeUnavailableError,
    UnknownNameError,
)
from gps_denied_inference.runtimes.contract import InferenceRuntime


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = dict(runtimes._registry)
    yield
    runtimes._registry.clear()
    runtimes._registry.update(before)


def test_names_of_the_shipped_runtimes() -> None:
    assert runtimes.runtime_names() == (
        "fake",
        "onnxruntime",
        "pytorch_fp16",
        "pytorch_fp32",
        "tensorrt",
    )
    assert all(runtimes.runtime_hint(name) for name in runtimes.runtime_names())


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

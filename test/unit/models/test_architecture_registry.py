"""Names of architectures: lazy, collision refused, the same registration twice is fine."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gps_denied_inference.errors import RegistrationError, UnknownNameError
from gps_denied_inference.models import registry as architectures
from gps_denied_inference.models.registry import (
    ArchitectureRegistry,
    default_registry,
    load_module,
    register_architecture,
)
from gps_denied_inference.runtimes.contract import BuildConfig, Model


def factory(model: Model, config: BuildConfig) -> object:
    return (model, config)


def other(model: Model, config: BuildConfig) -> object:
    return (config, model)


def test_same_registration_twice_is_fine_another_is_refused() -> None:
    registry = ArchitectureRegistry()
    register_architecture("mine", factory, registry=registry)
    register_architecture("mine", factory, registry=registry)
    path = f"{factory.__module__}:factory"
    register_architecture("mine", path, registry=registry)
    with pytest.raises(RegistrationError, match="'mine' is already registered"):
        register_architecture("mine", other, registry=registry)
    with pytest.raises(RegistrationError):
        register_architecture("mine", factory, graph="a:b", registry=registry)
    assert registry.get("mine").factory is factory
    assert registry.names() == ("mine",)
    assert "mine" in registry


def test_two_lambdas_are_two_factories() -> None:
    registry = ArchitectureRegistry()
    register_architecture("mine", lambda model, config: 1, registry=registry)  # type: ignore[arg-type,return-value]
    with pytest.raises(RegistrationError):
        register_architecture("mine", lambda model, config: 2, registry=registry)  # type: ignore[arg-type,return-value]


def test_a_registered_factory_is_what_load_module_calls() -> None:
    model, config = Model("m", "test-only", "extractor", 1), BuildConfig()
    register_architecture("test-only", factory)
    assert load_module(model, config) == (model, config)
    assert "test-only" in default_registry.names()


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown architecture 'nope': known are .*xfeat"):
        default_registry.get("nope")
    registry = ArchitectureRegistry()
    register_architecture("bare", factory, registry=registry)
    model = Model("m", "bare", "extractor", 1)
    with pytest.raises(UnknownNameError, match="bare"):
        registry.get("bare").assemble(None, model, BuildConfig())  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="bare"):
        registry.get("bare").load_network()


def test_registry_zoo_and_graphs_need_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from gps_denied_inference.models import default_registry, zoo\n"
        "from gps_denied_inference.models.specialise import specialised_graph\n"
        "from gps_denied_inference.runtimes.contract import BuildConfig\n"
        "model = zoo.resolve('xfeat')\n"
        "print(len(specialised_graph(model, BuildConfig(64, 64)).graph.node) > 50)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True", done.stderr


def test_importing_the_registry_imports_neither_torch_nor_onnx() -> None:
    code = (
        f"import sys; import {architectures.__name__}; "
        "print([m for m in ('torch', 'onnx', 'onnxruntime', 'cv2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr

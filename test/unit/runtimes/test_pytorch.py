"""What is PyTorch's own; the rest is in the conformance suite."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from gps_denied_inference.engines.cache import EngineCache  # noqa: E402
from gps_denied_inference.errors import (  # noqa: E402
    DeviceOutOfMemoryError,
    EngineLoadError,
    InferenceError,
    InvalidParameterError,
    ModelIntegrityError,
    ModelMismatchError,
    ModelNotFoundError,
    RuntimeUnavailableError,
)
from gps_denied_inference.models.registry import (  # noqa: E402
    Architecture,
    default_registry,
    register_architecture,
)
from gps_denied_inference.runtimes import create_runtime  # noqa: E402
from gps_denied_inference.runtimes.contract import BuildConfig, Model  # noqa: E402
from gps_denied_inference.runtimes.pytorch import engine as pytorch_engine  # noqa: E402
from gps_denied_inference.runtimes.pytorch.runtime import (  # noqa: E402
    PytorchFp16Runtime,
    PytorchRuntime,
)

K = 8
CONFIG = BuildConfig(height=32, width=32, max_keypoints=K)
IMAGE = {"image": np.full((32, 32, 1), 7, np.uint8)}


class Toy(torch.nn.Module):  # type: ignore[misc,name-defined]
    """A whole extractor with dropout: in training mode its answers would change."""

    fault: BaseException | None = None

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(1, 4)
        self.norm = torch.nn.BatchNorm1d(4)
        self.dropout = torch.nn.Dropout(0.5)

    def forward(self, image: Any) -> tuple[Any, ...]:
        if Toy.fault is not None:
            raise Toy.fault
        mean = image.float().mean().view(1, 1).to(self.linear.weight.dtype)
        descriptor = self.dropout(self.norm(self.linear(mean))).float()
        return (
            torch.zeros(K, 2),
            torch.zeros(K),
            descriptor.expand(K, 4).contiguous(),
            torch.zeros(1, dtype=torch.int32),
        )


class WrongOutputs(Toy):
    def forward(self, image: Any) -> tuple[Any, ...]:
        keypoints, *rest = super().forward(image)
        return (keypoints.double(), *rest)


def load_toy(model: Model, config: BuildConfig) -> Toy:
    module = WrongOutputs() if config.options.get("outputs") == "wrong" else Toy()
    assert model.weights is not None
    module.load_state_dict(torch.load(model.weights, weights_only=True))
    return module.train()  # whatever the architecture does, the runtime sets eval mode


@pytest.fixture(autouse=True)
def toy_architecture() -> Iterator[None]:
    register_architecture("toy", load_toy, options=("outputs",))
    yield
    Toy.fault = None
    entries: dict[str, Architecture] = default_registry._entries
    entries.pop("toy")


@pytest.fixture
def runtime(tmp_path: Path) -> PytorchRuntime:
    return PytorchRuntime(cache=EngineCache(tmp_path / "engines"))


def toy(folder: Path, content: object = None) -> Model:
    path = folder / "toy.pt"
    torch.save(Toy().state_dict() if content is None else content, path)
    return pinned(path)


def pinned(path: Path) -> Model:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Model("toy", "toy", "extractor", 4, weights=path, weights_sha256=digest)


def load(runtime: PytorchRuntime, model: Model, config: BuildConfig = CONFIG) -> Any:
    return runtime.deserialize_engine(runtime.compile_engine(model, config))


def test_eval_mode_is_set_whatever_the_architecture_left(
    runtime: PytorchRuntime, tmp_path: Path
) -> None:
    handle = load(runtime, toy(tmp_path))
    assert not handle._payload.training
    answers = [runtime.infer(handle, IMAGE)["descriptors"] for _ in range(5)]
    assert all(np.array_equal(answer, answers[0]) for answer in answers)


def test_weights_of_another_network_keep_their_cause(
    runtime: PytorchRuntime, tmp_path: Path
) -> None:
    model = toy(tmp_path, {"other.weight": torch.zeros(3)})
    with pytest.raises(ModelMismatchError, match=r"toy\.pt holds the weights of another") as caught:
        load(runtime, model)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert "other.weight" in str(caught.value.__cause__)


def test_a_missing_checkpoint_says_how_to_fetch_it(runtime: PytorchRuntime, tmp_path: Path) -> None:
    model = replace(toy(tmp_path), weights=tmp_path / "absent.pt")
    with pytest.raises(ModelNotFoundError, match="gdi models fetch toy"):
        runtime.compile_engine(model, CONFIG)
    with pytest.raises(ModelNotFoundError):
        runtime.compile_engine(replace(model, weights=None), CONFIG)


def test_a_checkpoint_that_is_not_the_pinned_one_is_refused(
    runtime: PytorchRuntime, tmp_path: Path
) -> None:
    model = replace(toy(tmp_path), weights_sha256="0" * 64)
    with pytest.raises(ModelIntegrityError, match="pinned is 0000"):
        runtime.compile_engine(model, CONFIG)


def test_a_truncated_checkpoint_is_refused(runtime: PytorchRuntime, tmp_path: Path) -> None:
    path = tmp_path / "short.pt"
    path.write_bytes(toy(tmp_path).weights.read_bytes()[:200])  # type: ignore[union-attr]
    with pytest.raises(ModelIntegrityError) as caught:
        load(runtime, pinned(path))
    assert caught.value.__cause__ is not None


class Malicious:
    """A pickle that would run code."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("/nonexistent/ran"),))


def test_a_checkpoint_that_would_run_code_is_refused(
    runtime: PytorchRuntime, tmp_path: Path
) -> None:
    model = toy(tmp_path, {"linear.weight": Malicious()})
    with pytest.raises(ModelIntegrityError):
        load(runtime, model)


def test_a_module_that_breaks_the_contract_is_refused(
    runtime: PytorchRuntime, tmp_path: Path
) -> None:
    config = replace(CONFIG, options={"outputs": "wrong"})
    with pytest.raises(EngineLoadError, match="float64"):
        load(runtime, toy(tmp_path), config)


@pytest.mark.parametrize(
    "fault",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("CUDA error: out of memory"),
        MemoryError(),
    ],
    ids=["allocator", "driver", "host"],
)
def test_out_of_memory_has_its_own_error_from_load_and_infer(
    runtime: PytorchRuntime, tmp_path: Path, fault: BaseException
) -> None:
    model = toy(tmp_path)
    handle = load(runtime, model)
    Toy.fault = fault
    with pytest.raises(DeviceOutOfMemoryError, match="while running 'toy'") as caught:
        runtime.infer(handle, IMAGE)
    assert caught.value.__cause__ is fault
    with pytest.raises(DeviceOutOfMemoryError, match="while loading") as caught:
        load(runtime, model)
    assert caught.value.__cause__ is fault
    Toy.fault = None
    runtime.infer(handle, IMAGE)  # the engine lives on


def test_other_failures_keep_their_cause(runtime: PytorchRuntime, tmp_path: Path) -> None:
    handle = load(runtime, toy(tmp_path))
    Toy.fault = ValueError("broken")
    with pytest.raises(InferenceError, match="broken") as caught:
        runtime.infer(handle, IMAGE)
    assert caught.value.__cause__ is Toy.fault
    with pytest.raises(EngineLoadError, match="broken"):
        load(runtime, toy(tmp_path))


def test_release_drops_the_module(runtime: PytorchRuntime, tmp_path: Path) -> None:
    import gc
    import weakref

    handle = load(runtime, toy(tmp_path))
    module = weakref.ref(handle._payload._module)
    runtime.release_engine(handle)
    gc.collect()
    assert module() is None


def test_labels_tell_the_two_apart(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    assert PytorchFp16Runtime(cache=cache).current_runtime_label() == "pytorch_fp16"
    assert PytorchRuntime(cache=cache).current_runtime_label() == "pytorch_fp32"


@pytest.mark.parametrize(
    ("name", "device", "precision", "refused"),
    [
        ("pytorch_fp16", "cpu", "fp16", "device"),
        ("pytorch_fp16", "cuda", "fp32", "precision"),
        ("pytorch_fp32", "cuda", "fp32", "device"),
        ("pytorch_fp32", "cpu", "fp16", "precision"),
    ],
)
def test_nothing_runs_elsewhere_than_its_label_says(
    name: str, device: str, precision: str, refused: str, tmp_path: Path
) -> None:
    runtime = create_runtime(name, cache=EngineCache(tmp_path))
    with pytest.raises(InvalidParameterError) as caught:
        runtime.compile_engine(toy(tmp_path), replace(CONFIG, device=device, precision=precision))
    assert caught.value.name == refused


def test_cuda_without_a_gpu_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pytorch_engine, "gpu_count", lambda: 0)
    runtime = PytorchFp16Runtime(cache=EngineCache(tmp_path))
    with pytest.raises(RuntimeUnavailableError, match="sees no CUDA GPU") as caught:
        runtime.compile_engine(toy(tmp_path), replace(CONFIG, device="cuda", precision="fp16"))
    assert "pytorch.org" in caught.value.hint


def test_a_gpu_beyond_the_last_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pytorch_engine, "gpu_count", lambda: 2)
    runtime = PytorchFp16Runtime(cache=EngineCache(tmp_path))
    with pytest.raises(RuntimeUnavailableError, match="choose cuda:0 to cuda:1"):
        runtime.compile_engine(toy(tmp_path), replace(CONFIG, device="cuda:2", precision="fp16"))


def test_without_torch_the_runtime_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    def fail(name: str, *_: Any) -> Any:
        raise ImportError("No module named 'torch'")

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(RuntimeUnavailableError, match="needs PyTorch") as caught:
        PytorchRuntime()
    assert "pip install torch" in caught.value.hint

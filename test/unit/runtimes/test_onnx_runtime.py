"""ONNX Runtime on the CPU with a tiny graph, and how its failures are told."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from gps_denied_inference.engines import reasons
from gps_denied_inference.engines.cache import EngineCache
from gps_denied_inference.engines.manifest import manifest_path
from gps_denied_inference.errors import (
    DeviceOutOfMemoryError,
    EngineBuildError,
    EngineLoadError,
    EngineRejectedError,
    InputMismatchError,
    InvalidHandleError,
    InvalidParameterError,
    ModelNotFoundError,
    ReadbackMismatchError,
    RuntimeUnavailableError,
)
from gps_denied_inference.runtimes.contract import BuildConfig, EngineHandle, Model
from gps_denied_inference.runtimes.onnx_runtime import session as ort_session
from gps_denied_inference.runtimes.onnx_runtime.runtime import OrtRuntime, Specs
from gps_denied_inference.runtimes.onnx_runtime.session import SessionSettings, map_error
from gps_denied_inference.runtimes.specs import engine_tensors

CONFIG = BuildConfig(height=32, width=64, max_keypoints=5, threads=1)
DIM = 4


def tiny_graph(model: Model, config: BuildConfig, path: Path, weight: type = np.float32) -> Specs:
    """Write an extractor whose scores are the first K pixels times a weight of two."""
    specs = engine_tensors(model, config)
    assert specs is not None
    k = config.max_keypoints
    constants = {
        "weight": np.array(2, weight),
        "zero": np.array([0], np.int64),
        "end": np.array([k], np.int64),
        "flat": np.array([-1], np.int64),
        "points": np.zeros((k, 2), np.float32),
        "vectors": np.ones((k, DIM), np.float32) / 2,
        "number": np.array([k], np.int32),
    }
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(weight))
    nodes = [
        helper.make_node("Reshape", ["image", "flat"], ["line"]),
        helper.make_node("Slice", ["line", "zero", "end"], ["head"]),
        helper.make_node("Cast", ["head"], ["real"], to=kind),
        helper.make_node("Mul", ["real", "weight"], ["double"]),
        helper.make_node("Cast", ["double"], ["scores"], to=TensorProto.FLOAT),
        helper.make_node("Identity", ["points"], ["keypoints"]),
        helper.make_node("Identity", ["vectors"], ["descriptors"]),
        helper.make_node("Identity", ["number"], ["count"]),
    ]
    sides = [
        [
            helper.make_tensor_value_info(
                spec.name, helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype)), spec.shape
            )
            for spec in side
        ]
        for side in specs
    ]
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "tiny", *sides, initializer=initializers)
    imports = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), str(path))
    return specs


@pytest.fixture
def model(tmp_path: Path) -> Model:
    graph = tmp_path / "source.onnx"
    graph.write_bytes(b"stands for the graph with symbolic sizes")
    return Model("tiny", "tiny", "extractor", DIM, graph=graph, graph_sha256="1" * 64)


@pytest.fixture
def runtime(tmp_path: Path) -> OrtRuntime:
    return OrtRuntime(cache=EngineCache(tmp_path / "cache"), specialise=tiny_graph)


@pytest.fixture
def handle(runtime: OrtRuntime, model: Model) -> EngineHandle:
    return runtime.deserialize_engine(runtime.compile_engine(model, CONFIG))


def image(value: int = 7) -> np.ndarray:
    return np.full((32, 64, 1), value, np.uint8)


def test_runs_and_says_what_runs(runtime: OrtRuntime, handle: EngineHandle) -> None:
    outputs = runtime.infer(handle, {"image": image()})
    np.testing.assert_array_equal(outputs["scores"], np.full(5, 14, np.float32))
    assert list(outputs) == ["keypoints", "scores", "descriptors", "count"]
    readback = handle.readback
    assert (readback.runtime, readback.provider, readback.device, readback.precision) == (
        "onnxruntime",
        "CPUExecutionProvider",
        "cpu",
        "fp32",
    )
    assert readback.version == onnxruntime.__version__
    assert 0 < handle.load_time < 30


def test_outputs_belong_to_the_caller(runtime: OrtRuntime, handle: EngineHandle) -> None:
    first = runtime.infer(handle, {"image": image(1)})
    runtime.infer(handle, {"image": image(9)})
    np.testing.assert_array_equal(first["scores"], np.full(5, 2, np.float32))
    first["descriptors"][:] = 0
    assert runtime.infer(handle, {"image": image(1)})["descriptors"].all()


def test_input_that_is_not_contiguous(runtime: OrtRuntime, handle: EngineHandle) -> None:
    wide = np.arange(32 * 128, dtype=np.uint8).reshape(32, 128, 1)
    outputs = runtime.infer(handle, {"image": wide[:, ::2]})
    np.testing.assert_array_equal(outputs["scores"], [0, 4, 8, 12, 16])


def test_second_compile_finds_the_first(runtime: OrtRuntime, model: Model) -> None:
    said: list[str] = []
    first = runtime.compile_engine(model, CONFIG, lambda share, what: said.append(what))
    assert said == ["fixing the graph of tiny", "engine stored"]
    said.clear()
    second = runtime.compile_engine(model, CONFIG, lambda share, what: said.append(what))
    assert said == []
    assert second.artifact == first.artifact
    other = runtime.compile_engine(model, dataclasses.replace(CONFIG, max_keypoints=6))
    assert other.artifact != first.artifact


def test_release_is_idempotent_and_final(runtime: OrtRuntime, handle: EngineHandle) -> None:
    stranger = OrtRuntime(specialise=tiny_graph)
    with pytest.raises(InvalidHandleError, match="not made by this runtime"):
        stranger.release_engine(handle)
    runtime.release_engine(handle)
    runtime.release_engine(handle)
    assert handle.released
    with pytest.raises(InvalidHandleError, match="released"):
        runtime.infer(handle, {"image": image()})


def test_reloads_after_release(runtime: OrtRuntime, handle: EngineHandle) -> None:
    runtime.release_engine(handle)
    again = runtime.deserialize_engine(handle.entry)
    assert runtime.infer(again, {"image": image()})["scores"][0] == 14


def test_threads_get_their_own_answers(runtime: OrtRuntime, handle: EngineHandle) -> None:
    wrong: list[int] = []

    def work(value: int) -> None:
        for _ in range(50):
            if runtime.infer(handle, {"image": image(value)})["scores"][0] != 2 * value:
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(value,)) for value in (3, 30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_wrong_input_is_refused(runtime: OrtRuntime, handle: EngineHandle) -> None:
    with pytest.raises(InputMismatchError, match=r"uint8 \(32, 64, 1\), got float32"):
        runtime.infer(handle, {"image": image().astype(np.float32)})


def test_altered_engine_is_refused_before_it_is_loaded(
    runtime: OrtRuntime, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = runtime.compile_engine(model, CONFIG)
    entry.artifact.write_bytes(entry.artifact.read_bytes()[:-1] + b"\0")
    monkeypatch.setattr(ort_session, "_create", lambda *args: pytest.fail("it was loaded"))
    with pytest.raises(EngineRejectedError) as raised:
        runtime.deserialize_engine(entry)
    assert raised.value.reasons == (reasons.HASH,)


def reseal(runtime: OrtRuntime, model: Model, data: bytes, **changes: object) -> EngineHandle:
    """Load an engine whose manifest is made to fit other bytes, as a faulty builder would."""
    import hashlib

    entry = runtime.compile_engine(model, CONFIG)
    entry.artifact.write_bytes(data)
    manifest = dataclasses.replace(
        entry.manifest,
        artifact_size=len(data),
        artifact_sha256=hashlib.sha256(data).hexdigest(),
        **changes,  # type: ignore[arg-type]
    )
    manifest_path(entry.artifact).write_bytes(manifest.to_json())
    return runtime.deserialize_engine(entry)


def test_engine_that_is_no_graph(runtime: OrtRuntime, model: Model) -> None:
    with pytest.raises(EngineLoadError, match="no ONNX graph") as raised:
        reseal(runtime, model, b"\xff" * 64)
    assert raised.value.__cause__ is not None


def test_graph_of_other_shapes_than_its_manifest(
    runtime: OrtRuntime, model: Model, tmp_path: Path
) -> None:
    other = tmp_path / "other.onnx"
    tiny_graph(model, dataclasses.replace(CONFIG, width=96), other)
    with pytest.raises(EngineLoadError, match=r"\(32, 96, 1\).*manifest says.*\(32, 64, 1\)"):
        reseal(runtime, model, other.read_bytes())


def test_engine_of_another_provider(runtime: OrtRuntime, model: Model) -> None:
    data = runtime.compile_engine(model, CONFIG).artifact.read_bytes()
    with pytest.raises(EngineRejectedError, match="provider 'cuda'") as raised:
        reseal(runtime, model, data, builder_flags={"provider": "cuda"})
    assert raised.value.reasons == (reasons.CONFIG,)


def test_half_precision_weights_under_a_full_precision_label(
    runtime: OrtRuntime, model: Model, tmp_path: Path
) -> None:
    half = tmp_path / "half.onnx"
    tiny_graph(model, CONFIG, half, weight=np.float16)
    with pytest.raises(ReadbackMismatchError, match=r"fp32 was asked for.*is fp16"):
        reseal(runtime, model, half.read_bytes())


def test_builder_that_fails_keeps_its_cause(model: Model, tmp_path: Path) -> None:
    def broken(model: Model, config: BuildConfig, path: Path) -> Specs:
        raise ValueError("no such operator")

    runtime = OrtRuntime(cache=EngineCache(tmp_path / "cache"), specialise=broken)
    with pytest.raises(EngineBuildError, match="no such operator") as raised:
        runtime.compile_engine(model, CONFIG)
    assert isinstance(raised.value.__cause__, ValueError)


def test_model_without_graph(runtime: OrtRuntime, model: Model) -> None:
    for graph in (None, Path("absent.onnx")):
        with pytest.raises(ModelNotFoundError, match="no ONNX graph on disk.*gdi models export"):
            runtime.compile_engine(dataclasses.replace(model, graph=graph), CONFIG)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"precision": "fp16"}, "'precision' = 'fp16'.*'fp32' on the CPU"),
        ({"options": {"provider": "cuda"}}, "'provider' = 'cuda'.*device 'cpu'"),
        ({"options": {"provider": "npu"}}, "'provider' = 'npu'"),
        ({"device": "gpu"}, "'device' = 'gpu'"),
        ({"width": 65}, "'width' = 65.*multiple of 32"),
        ({"max_keypoints": 0}, "'max_keypoints' = 0"),
    ],
)
def test_impossible_configurations(
    runtime: OrtRuntime, model: Model, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(InvalidParameterError, match=words):
        runtime.compile_engine(model, dataclasses.replace(CONFIG, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["policy", "provider", "conv_search"])
def test_impossible_options(option: str) -> None:
    with pytest.raises(InvalidParameterError, match=f"'{option}' = 'odd'"):
        OrtRuntime(**{option: "odd"})  # type: ignore[arg-type]


def test_cuda_without_its_build_says_what_to_install(
    runtime: OrtRuntime, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(RuntimeUnavailableError, match="CUDAExecutionProvider") as raised:
        runtime.compile_engine(model, dataclasses.replace(CONFIG, device="cuda:0"))
    assert "pip install onnxruntime-gpu" in raised.value.hint


def test_session_that_ends_on_the_cpu_is_refused(
    handle: EngineHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the library does when CUDA's libraries do not load: it runs on the CPU instead."""
    settings = SessionSettings("cuda")
    monkeypatch.setattr(ort_session, "_providers", lambda settings: [("CPUExecutionProvider", {})])
    create = onnxruntime.SessionOptions.add_session_config_entry
    monkeypatch.setattr(
        onnxruntime.SessionOptions,
        "add_session_config_entry",
        lambda self, name, value: None if "fallback" in name else create(self, name, value),
    )
    data = handle.entry.artifact.read_bytes()
    with pytest.raises(ReadbackMismatchError, match=r"CUDA.* asked for, but CPU.* runs; install"):
        ort_session.OrtSession(data, settings, handle.inputs, handle.outputs)


def test_nodes_may_not_fall_to_the_cpu(handle: EngineHandle) -> None:
    """The library's own refusal, with its real words, becomes a read-back mismatch."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    with pytest.raises(Exception, match="fallback to CPU EP") as raised:
        onnxruntime.InferenceSession(
            handle.entry.artifact.read_bytes(), options, providers=[], enable_fallback=0
        )
    mapped = map_error(raised.value, "load the engine", SessionSettings("cuda"))
    assert isinstance(mapped, ReadbackMismatchError)
    assert "onnxruntime-gpu" in str(mapped)


def failing(error: Exception) -> Callable[..., list[np.ndarray]]:
    def run(*arguments: object) -> list[np.ndarray]:
        raise error

    return run


def test_failure_while_running_keeps_the_handle_usable(
    runtime: OrtRuntime, handle: EngineHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ort_session.OrtSession, "run", failing(MemoryError()))
        with pytest.raises(DeviceOutOfMemoryError, match="the CPU has no memory left") as raised:
            runtime.infer(handle, {"image": image()})
        assert isinstance(raised.value.__cause__, MemoryError)
    assert runtime.infer(handle, {"image": image()})["scores"][0] == 14


def test_failed_warm_up_gives_everything_back(
    runtime: OrtRuntime, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[object] = []
    close = ort_session.OrtSession.close
    monkeypatch.setattr(
        ort_session.OrtSession, "close", lambda self: (closed.append(self), close(self))
    )
    monkeypatch.setattr(ort_session.OrtSession, "run", failing(RuntimeError("boom")))
    with pytest.raises(EngineLoadError, match="warm up the engine: boom"):
        runtime.deserialize_engine(runtime.compile_engine(model, CONFIG))
    assert len(closed) == 1


def test_session_with_a_cuda_graph_keeps_to_one_thread(
    handle: EngineHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    run, release = ort_session.OrtSession._run, ort_session.OrtSession._release

    def note_run(self: ort_session.OrtSession, arrays: list[np.ndarray]) -> list[np.ndarray]:
        seen.append(threading.get_ident())
        return run(self, arrays)

    def note_release(self: ort_session.OrtSession) -> None:
        seen.append(threading.get_ident())
        release(self)

    monkeypatch.setattr(ort_session.OrtSession, "_run", note_run)
    monkeypatch.setattr(ort_session.OrtSession, "_release", note_release)
    settings = SessionSettings("cpu", cuda_graph=True)
    before = threading.active_count()
    session = ort_session.OrtSession(
        handle.entry.artifact.read_bytes(), settings, handle.inputs, handle.outputs
    )
    for _ in range(2):
        thread = threading.Thread(target=session.run, args=([image()],))
        thread.start()
        thread.join()
    assert session.run([image(4)])[1][0] == 8
    session.close()
    session.close()
    assert len(seen) == 5
    assert len(set(seen[:4])) == 1
    assert seen[0] != threading.get_ident()
    assert threading.active_count() == before

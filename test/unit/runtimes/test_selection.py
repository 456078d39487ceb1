from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gps_denied_inference.errors import (
    InvalidParameterError,
    RuntimeUnavailableError,
    UnknownNameError,
)
from gps_denied_inference.runtimes import runtime_names
from gps_denied_inference.runtimes.gpus import Gpu, GpuSurvey
from gps_denied_inference.runtimes.machine import Machine
from gps_denied_inference.runtimes.selection import select
from gps_denied_inference.runtimes.tensorrt.probe import find_tensorrt

NO_GPU = GpuSurvey(reason="there is no NVIDIA driver here")
RTX = GpuSurvey((Gpu(0, "RTX 4090", "8.9", 1 << 34),), "13.0")
H100 = GpuSurvey((Gpu(0, "H100", "9.0", 1 << 36), Gpu(1, "H100", "9.0", 1 << 36)), "13.0")

ORT_CPU = SimpleNamespace(
    __version__="1.30", get_available_providers=lambda: ["CPUExecutionProvider"]
)
ORT_GPU = SimpleNamespace(
    __version__="1.31",
    get_available_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
)
CUDA = SimpleNamespace()


def torch(sees_gpu: bool) -> Any:
    cuda = SimpleNamespace(is_available=lambda: sees_gpu)
    return SimpleNamespace(__version__="2.11", cuda=cuda)


def library(name: str, version: str = "11.0") -> Any:
    return SimpleNamespace(__name__=name, __version__=version, Builder=object)


def machine(gpus: GpuSurvey, **modules: Any) -> Machine:
    def find(name: str) -> Any:
        key = name.replace(".", "_")
        if key not in modules:
            raise ImportError(f"No module named '{name}'")
        return modules[key]

    return Machine(gpus, find)


def test_auto_prefers_onnxruntime_on_cuda_to_tensorrt() -> None:
    here = machine(
        H100, tensorrt=library("tensorrt"), onnxruntime=ORT_GPU, cuda_bindings_runtime=CUDA
    )
    chosen = select(machine=here)
    assert (chosen.runtime, chosen.device, chosen.precision) == ("onnxruntime", "cuda:0", "fp16")
    assert chosen.passed_over == ()
    assert select("tensorrt", machine=here).runtime == "tensorrt"


def test_auto_takes_tensorrt_where_onnxruntime_has_no_cuda_and_says_so() -> None:
    here = machine(
        H100, tensorrt=library("tensorrt"), onnxruntime=ORT_CPU, cuda_bindings_runtime=CUDA
    )
    chosen = select(machine=here)
    assert (chosen.runtime, chosen.device, chosen.precision) == ("tensorrt", "cuda:0", "fp16")
    assert chosen.passed_over == (
        ("onnxruntime (cuda)", "onnxruntime 1.30 was built without its CUDA provider"),
    )


def test_auto_ends_on_the_cpu_with_every_reason() -> None:
    chosen = select(machine=machine(NO_GPU, onnxruntime=ORT_CPU))
    assert (chosen.runtime, chosen.device, chosen.precision) == ("onnxruntime", "cpu", "fp32")
    assert [name for name, _ in chosen.passed_over] == ["onnxruntime (cuda)", "tensorrt (cuda)"]
    assert all("no NVIDIA driver" in reason for _, reason in chosen.passed_over)


def test_auto_passes_over_rtx_on_a_gpu_that_it_does_not_run_on() -> None:
    modules = {
        "tensorrt_rtx": library("tensorrt_rtx", "1.7"),
        "onnxruntime": ORT_CPU,
        "cuda_bindings_runtime": CUDA,
    }
    chosen = select(machine=machine(H100, **modules))
    assert chosen.device == "cpu"
    assert "compute capability 9.0" in dict(chosen.passed_over)["tensorrt (cuda)"]
    assert select(machine=machine(RTX, **modules)).runtime == "tensorrt"


def test_auto_passes_over_tensorrt_without_cuda_python() -> None:
    here = machine(H100, tensorrt=library("tensorrt"), onnxruntime=ORT_CPU)
    passed_over = dict(select(machine=here).passed_over)
    assert "cuda-python is missing" in passed_over["tensorrt (cuda)"]


def test_auto_names_a_cpu_build_of_onnxruntime() -> None:
    chosen = select(machine=machine(H100, onnxruntime=ORT_CPU))
    assert chosen.device == "cpu"
    assert "without its CUDA provider" in dict(chosen.passed_over)["onnxruntime (cuda)"]


def test_auto_never_takes_pytorch() -> None:
    with pytest.raises(RuntimeUnavailableError, match="onnxruntime cannot be imported"):
        select(machine=machine(H100, torch=torch(True)))


def test_an_explicit_device_is_never_left() -> None:
    with pytest.raises(RuntimeUnavailableError) as caught:
        select("auto", "cuda", machine=machine(NO_GPU, onnxruntime=ORT_CPU))
    assert "no NVIDIA driver" in str(caught.value)
    assert caught.value.hint
    chosen = select("auto", "cpu", machine=machine(H100, onnxruntime=ORT_GPU))
    assert (chosen.device, chosen.precision) == ("cpu", "fp32")


@pytest.mark.parametrize("runtime", ["tensorrt", "pytorch_fp16"])
def test_an_explicit_runtime_never_falls_back(runtime: str) -> None:
    here = machine(NO_GPU, onnxruntime=ORT_CPU, torch=torch(False))
    with pytest.raises(RuntimeUnavailableError, match=runtime):
        select(runtime, machine=here)


def test_an_explicit_runtime_with_device_auto_may_choose_its_device_and_says_why() -> None:
    chosen = select("onnxruntime", machine=machine(NO_GPU, onnxruntime=ORT_CPU))
    assert chosen.device == "cpu"
    assert [name for name, _ in chosen.passed_over] == ["onnxruntime (cuda)"]


def test_a_cpu_build_of_pytorch_is_named() -> None:
    with pytest.raises(RuntimeUnavailableError, match="sees no GPU") as caught:
        select("pytorch_fp16", machine=machine(H100, torch=torch(False)))
    assert "pytorch.org" in caught.value.hint


@pytest.mark.parametrize(
    ("asked", "sees_gpu", "label", "device"),
    [
        (("pytorch", "auto", "auto"), True, "pytorch_fp16", "cuda:0"),
        (("pytorch", "auto", "fp32"), True, "pytorch_fp32", "cpu"),
        (("pytorch", "cpu", "auto"), True, "pytorch_fp32", "cpu"),
        (("pytorch", "auto", "auto"), False, "pytorch_fp32", "cpu"),
        (("pytorch_fp16", "auto", "auto"), True, "pytorch_fp16", "cuda:0"),
        (("pytorch_fp32", "auto", "auto"), True, "pytorch_fp32", "cpu"),
    ],
)
def test_pytorch_runs_under_the_label_of_its_precision(
    asked: tuple[str, str, str], sees_gpu: bool, label: str, device: str
) -> None:
    chosen = select(*asked, machine=machine(H100, torch=torch(sees_gpu)))
    assert (chosen.runtime, chosen.device) == (label, device)
    assert chosen.precision == label[-4:]


@pytest.mark.parametrize(
    ("runtime", "device", "precision", "name"),
    [
        ("auto", "auto", "int8", "precision"),
        ("auto", "gpu", "auto", "device"),
        ("tensorrt", "cpu", "auto", "device"),
        ("pytorch_fp32", "cuda:0", "auto", "device"),
        ("pytorch_fp16", "auto", "fp32", "precision"),
        ("pytorch_fp32", "auto", "fp16", "precision"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    runtime: str, device: str, precision: str, name: str
) -> None:
    with pytest.raises(InvalidParameterError) as caught:
        select(runtime, device, precision, machine=machine(H100, torch=torch(True)))
    assert caught.value.name == name


def test_unknown_runtime() -> None:
    with pytest.raises(UnknownNameError, match="tensorflow"):
        select("tensorflow", machine=machine(NO_GPU))


def test_a_second_gpu_can_be_named_and_a_third_is_refused() -> None:
    here = machine(H100, onnxruntime=ORT_GPU)
    assert select("onnxruntime", "cuda:1", machine=here).device == "cuda:1"
    with pytest.raises(RuntimeUnavailableError, match="driver shows 2 GPU"):
        select("onnxruntime", "cuda:2", machine=here)


def test_an_explicit_precision_is_kept() -> None:
    here = machine(H100, onnxruntime=ORT_GPU)
    assert select("onnxruntime", "cuda", "fp32", machine=here).precision == "fp32"


def test_half_precision_is_not_silently_dropped_on_the_cpu() -> None:
    with pytest.raises(RuntimeUnavailableError, match="half precision"):
        select("auto", "auto", "fp16", machine=machine(NO_GPU, onnxruntime=ORT_CPU))


def test_every_registered_runtime_can_be_selected_or_is_refused_with_a_reason() -> None:
    here = machine(NO_GPU)
    for name in runtime_names():
        if name == "fake":
            assert select(name, machine=here).runtime == "fake"
            continue
        with pytest.raises(RuntimeUnavailableError, match=name):
            select(name, machine=here)


def test_stubs_are_not_taken_for_tensorrt() -> None:
    def find(name: str) -> Any:
        if name == "tensorrt":
            return SimpleNamespace(__name__="tensorrt")  # a folder that holds only .pyi files
        return library(name)

    found = find_tensorrt(find)
    assert found is not None
    assert found.__name__ == "tensorrt_rtx"
    assert find_tensorrt(find, "tensorrt") is None


def test_auto_is_full_precision_for_a_model_that_has_no_other() -> None:
    here = machine(H100, onnxruntime=ORT_GPU)
    assert select(machine=here).precision == "fp16"
    only = select(precisions=("fp32",), machine=here)
    assert (only.runtime, only.device, only.precision) == ("onnxruntime", "cuda:0", "fp32")
    # What is named is not replaced: the model itself refuses it, with its reason.
    assert select(precision="fp16", precisions=("fp32",), machine=here).precision == "fp16"

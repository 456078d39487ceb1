"""Matchers on a real NVIDIA GPU: in both precisions they find what the CPU finds.

python3 -m pytest test/gpu/test_gpu_matchers.py -q -rs
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime", reason="this runtime needs onnxruntime")

import onnxruntime

from gps_denied_inference.architectures import zoo
from gps_denied_inference.bench.engines import Arrays, matcher_inputs, open_engine, pairs_of
from gps_denied_inference.demo.simulation import SimulatedFlight
from gps_denied_inference.runtimes.gpus import survey
from gps_denied_inference.runtimes.protocol import BuildConfig

SURVEY = survey()
CUDA = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not SURVEY.gpus, reason=SURVEY.reason or "there is no GPU"),
    pytest.mark.skipif(not CUDA, reason="this onnxruntime is built without CUDA"),
]
CPU = BuildConfig(options={"pruning": "off"})  # as on a GPU, where shapes are static
SHIPPED = [
    name
    for name in zoo.names()
    if zoo.get(name).kind == "matcher"
    and zoo.get(name).graph
    and zoo.get(name).descriptor_dim == 64
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    flight = SimulatedFlight(frames=120)
    frames = [flight.render(index)[:, :, 1:2].copy() for index in (0, 3)]
    with open_engine("xfeat", "onnxruntime", CPU, tmp_path_factory.mktemp("xfeat")) as extract:
        found = [extract(image=frame) for frame in frames]
    return matcher_inputs(*found, (640, 480))


@pytest.mark.parametrize("cuda_graph", [True, False])
@pytest.mark.parametrize(("precision", "same"), [("fp32", 0.98), ("fp16", 0.95)])
@pytest.mark.parametrize("matcher", SHIPPED)
def test_finds_on_the_gpu_what_the_cpu_finds(
    matcher: str, precision: str, same: float, cuda_graph: bool, inputs: Arrays, tmp_path: Path
) -> None:
    with open_engine(matcher, "onnxruntime", CPU, tmp_path / "cpu") as match:
        wanted = pairs_of(match(**inputs)["matches0"])
    config = dataclasses.replace(
        BuildConfig(), device="cuda:0", precision=precision, cuda_graph=cuda_graph
    )
    with open_engine(matcher, "onnxruntime", config, tmp_path / "gpu") as match:
        back = match.handle.readback
        assert (back.provider, back.precision) == ("CUDAExecutionProvider", precision)
        found = pairs_of(match(**inputs)["matches0"])
    assert len(wanted) > 100
    assert len(found & wanted) >= same * len(found | wanted)

"""The shipped graph is what the exporter makes of the published weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from gps_denied_inference.errors import StorageError
from gps_denied_inference.models import zoo
from gps_denied_inference.runtimes.contract import Model


@pytest.mark.parametrize(
    "name", [n for n in zoo.names() if zoo.get(n).graph and zoo.get(n).weights]
)
def test_export_makes_the_shipped_graph_again(
    name: str, tmp_path: Path, published: Callable[[str], Model]
) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed: it exports")
    from gps_denied_inference.models.export import export_network

    model = published(name)
    path = tmp_path / "again.onnx"
    digest = export_network(model, path)
    assert digest == zoo.sha256_of(path)
    assert model.graph is not None
    again, shipped = onnx.load(path).graph, onnx.load(model.graph).graph
    # Another torch version may name things otherwise; the weights must be the same numbers.
    assert [n.op_type for n in again.node] == [n.op_type for n in shipped.node]
    ours = sorted(numpy_helper.to_array(t).ravel().tolist() for t in again.initializer)
    theirs = sorted(numpy_helper.to_array(t).ravel().tolist() for t in shipped.initializer)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    used = {name for n in shipped.node for name in n.input}
    assert {t.name for t in shipped.initializer} <= used
    with pytest.raises(StorageError, match="cannot write"):
        export_network(model, tmp_path / "no" / "folder.onnx")

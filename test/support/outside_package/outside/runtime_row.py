"""The row of the runtime."""

from gps_denied_inference.runtimes import RuntimeRow

ROW = RuntimeRow(
    "onnx_reference", "outside.reference_runtime:ReferenceRuntime", "python3 -m pip install onnx"
)

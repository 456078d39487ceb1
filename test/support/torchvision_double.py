"""Stands in for the three functions of torchvision that ALIKED's published code calls.

torchvision's wheel of the registry does not load beside a CPU build of PyTorch. The deformable
convolution here reads the four neighbours of each position itself, so it has nothing in common with
the sampling that it helps to check; ``test_aliked_parity.py`` holds it against ONNX's own reference
implementation of ``DeformConv``.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

import torch
from torch import nn


def deform_conv2d(
    input: torch.Tensor,
    offset: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Any = (1, 1),
    padding: Any = (0, 0),
    dilation: Any = (1, 1),
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Deformable convolution with stride 1 and no mask; offsets are (dy, dx) of each tap."""
    assert bias is None
    assert mask is None
    _, channels, height, width = input.shape
    outputs, _, rows, columns = weight.shape
    result = input.new_zeros(1, outputs, height, width)
    y0 = torch.arange(height, dtype=input.dtype)[:, None] - padding[0]
    x0 = torch.arange(width, dtype=input.dtype)[None] - padding[1]
    flat = input[0].reshape(channels, -1)
    for tap in range(rows * columns):
        y = y0 + tap // columns + offset[0, 2 * tap]
        x = x0 + tap % columns + offset[0, 2 * tap + 1]
        value = input.new_zeros(channels, height, width)
        for row in (torch.floor(y), torch.floor(y) + 1):
            for column in (torch.floor(x), torch.floor(x) + 1):
                share = (1 - (y - row).abs()) * (1 - (x - column).abs())
                inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
                index = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
                value += flat[:, index.long()] * (share * inside)
        result += torch.einsum("oc,chw->ohw", weight[:, :, tap // columns, tap % columns], value)
    return result


def conv1x1(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1, bias=False)


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


def install() -> None:
    """Put this in the place of torchvision where torchvision cannot be imported."""
    try:
        importlib.import_module("torchvision")
        return
    except (ImportError, RuntimeError):  # absent, or built for another PyTorch
        pass
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    root, ops, models, resnet = (
        ModuleType(f"torchvision{rest}") for rest in ("", ".ops", ".models", ".models.resnet")
    )
    ops.deform_conv2d = deform_conv2d  # type: ignore[attr-defined]
    resnet.conv1x1, resnet.conv3x3 = conv1x1, conv3x3  # type: ignore[attr-defined]
    models.resnet = resnet  # type: ignore[attr-defined]
    root.ops, root.models = ops, models  # type: ignore[attr-defined]
    for module in (root, ops, models, resnet):
        sys.modules[module.__name__] = module

"""Reading published checkpoints: tensors only, never code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from gps_denied_inference.errors import (
    ModelIntegrityError,
    ModelMismatchError,
    ModelNotFoundError,
)
from gps_denied_inference.runtimes.specs import Model


def read_state_dict(model: Model) -> dict[str, torch.Tensor]:
    """Read ``model.weights`` on the CPU with ``weights_only=True``.

    Raises:
        ModelNotFoundError: the file is absent or was never fetched.
        ModelIntegrityError: the file is truncated or is no checkpoint.
    """
    if model.weights is None:
        raise ModelNotFoundError(
            f"the weights of '{model.name}' are not on disk; run 'gdi models fetch {model.name}'"
        )
    path = Path(model.weights)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelNotFoundError(f"no weights at {path}") from error
    except Exception as error:  # damaged bytes: pickle's, struct's, zip's and torch's own errors
        raise ModelIntegrityError(
            f"{path} is not a readable PyTorch checkpoint (truncated, or another kind of file); "
            f"fetch it again with 'gdi models fetch {model.name}'"
        ) from error
    if not isinstance(state, Mapping):
        raise ModelMismatchError(
            f"{path} holds a {type(state).__name__}, not a dictionary of tensors"
        )
    for key, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise ModelMismatchError(
                f"{path} holds a {type(value).__name__} under {key!r}, not a tensor"
            )
    return {str(key): value for key, value in state.items()}


def load_state(module: torch.nn.Module, state: Mapping[str, torch.Tensor], model: Model) -> None:
    """Load ``state`` into ``module``; every key and shape must fit.

    Raises:
        ModelMismatchError: these weights belong to another network (PyTorch's error is the cause).
    """
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ModelMismatchError(
            f"the weights in {model.weights} do not fit '{model.architecture}': "
            f"they belong to another network"
        ) from error

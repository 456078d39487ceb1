"""Checkpoints that are damaged, or hold something else, are refused in one line."""

from __future__ import annotations

import random
import warnings
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed")

import torch

from gps_denied_inference.errors import ModelIntegrityError, ModelMismatchError
from gps_denied_inference.models.checkpoint import read_state_dict
from gps_denied_inference.runtimes.specs import Model

STATE = {"conv.weight": torch.arange(400.0).reshape(20, 20), "conv.bias": torch.ones(5)}


def model(path: Path) -> Model:
    return Model("toy", "toy", "extractor", 64, weights=path)


def refusal(file: Path) -> str:
    """Return the error's line; empty where the damage hit nothing that is checked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of an odd pickle protocol
        try:
            read_state_dict(model(file))
        except (ModelIntegrityError, ModelMismatchError) as error:
            return str(error)
    return ""


@pytest.mark.parametrize("zipped", [True, False])
def test_damage_anywhere_is_an_error_of_ours(tmp_path: Path, zipped: bool) -> None:
    file = tmp_path / "toy.pt"
    torch.save(STATE, file, _use_new_zipfile_serialization=zipped)
    assert read_state_dict(model(file)).keys() == STATE.keys()
    whole, chance, refused = file.read_bytes(), random.Random(4), 0
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 6)):
            damaged[chance.randrange(len(whole))] = chance.randrange(256)
        file.write_bytes(damaged[: chance.choice((len(whole), chance.randrange(len(whole))))])
        line = refusal(file)
        assert "\n" not in line
        refused += bool(line)
    assert refused > 100


@pytest.mark.parametrize("content", [[1, 2], {"conv.weight": 3}, torch.ones(3)])
def test_what_is_no_dictionary_of_tensors_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "toy.pt")
    with pytest.raises(ModelMismatchError, match=r"toy\.pt holds a "):
        read_state_dict(model(tmp_path / "toy.pt"))

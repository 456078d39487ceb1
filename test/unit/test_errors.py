"""What goes wrong in one process is said by another as it was."""

from __future__ import annotations

import pickle

import pytest

from gps_denied_inference import errors


@pytest.mark.parametrize(
    "error",
    [
        errors.MapError("a map"),
        errors.InvalidParameterError("gsd", 0.0, "in 0.001..1000 m/px"),
        errors.UnknownNameError("model", "xfat", ["xfeat"]),
        errors.RuntimeUnavailableError("no library", "install it"),
        errors.FrameError("cut short", "truncated"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_come_through_processes_as_they_are(error: Exception) -> None:
    there = pickle.loads(pickle.dumps(error))
    assert type(there) is type(error)
    assert str(there) == str(error)
    assert vars(there) == vars(error)

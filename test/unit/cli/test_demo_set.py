"""gdi demo --set: a whole number is taken for a double."""

from __future__ import annotations

import argparse

import pytest

from gps_denied_inference.cli.demo import _parameters


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        ("frame_rate_limit=20", {"frame_rate_limit": "20.0"}),
        ("frame_rate_limit=2.5", {"frame_rate_limit": "2.5"}),
        ("frame_rate_limit=fast", {"frame_rate_limit": "fast"}),
        ("max_keypoints=20", {"max_keypoints": "20"}),
        ("model=xfeat", {"model": "xfeat"}),
    ],
)
def test_values_are_written_as_the_parameters_type(pair, expected):
    arguments = argparse.Namespace(set=[pair], runtime=None, device=None, precision=None)
    assert _parameters(arguments) == expected

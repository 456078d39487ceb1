"""The table of settings, and the files that are made from it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import yaml
from settings_pages import as_markdown, as_yaml

from gps_denied_inference.errors import InvalidParameterError, UnknownNameError
from gps_denied_inference.settings import Settings

ROOT = Path(__file__).parents[2]
ROWS = list(Settings.table())


def test_the_parameter_file_is_the_table():
    assert (ROOT / "config" / "inference.yaml").read_text() == as_yaml()
    loaded = yaml.safe_load(as_yaml())["/**"]["ros__parameters"]
    assert Settings.from_mapping(loaded) == Settings()


def test_the_readme_holds_the_table():
    assert as_markdown() in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_row_takes_its_default_and_refuses_another_type(row):
    row.check(row.default)
    wrong = 3 if isinstance(row.default, str) else "three"
    with pytest.raises(InvalidParameterError) as refusal:
        row.check(wrong)
    for part in (row.name, repr(wrong), row.bound):
        assert part in str(refusal.value)
    assert row.description.endswith(".")


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.minimum is not None], ids=lambda row: row.name
)
def test_bounds_are_inclusive_and_nothing_lies_beyond(row):
    kind = type(row.default)
    step = 1 if kind is int else 1e-6
    row.check(kind(row.minimum))
    with pytest.raises(InvalidParameterError):
        row.check(kind(row.minimum - step))
    if row.maximum is not None:
        row.check(kind(row.maximum))
        with pytest.raises(InvalidParameterError):
            row.check(kind(row.maximum + step))
    if kind is float:
        with pytest.raises(InvalidParameterError):
            row.check(float("nan"))


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(UnknownNameError, match="max_keypoints"):
        Settings.from_mapping({"max_keypoint": 10})


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"device": "cuda:x"}, "device"),
        ({"image_height": 240}, "image_height"),
        ({"image_width": 100}, "image_width"),
        ({"require_signed_engines": True}, "engine_public_key"),
        ({"thermal_source": "replay"}, "thermal_replay_file"),
        ({"task": "track", "detection_interval": 10}, "detection_interval"),
        (
            {"task": "track", "detection_interval": 2, "max_followed_frames": 0},
            "detection_interval",
        ),
        ({"task": "track", "detection_interval": 2, "geometry": "none"}, "detection_interval"),
        ({"max_keypoints": 100, "thermal_reduced_keypoints": 100}, "thermal_reduced_keypoints"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changes, name):
    with pytest.raises(InvalidParameterError) as refusal:
        Settings.from_mapping(dataclasses.asdict(Settings()) | changes)
    assert refusal.value.name == name


@pytest.mark.parametrize(
    "changes",
    [
        {"detection_interval": 9},
        {"detection_interval": 2, "max_followed_frames": 1},
        {"detection_interval": 50, "max_followed_frames": 1, "task": "match"},
    ],
)
def test_settings_that_go_together_are_taken(changes):
    Settings.from_mapping({"task": "track"} | changes)


def test_words_that_are_choices_are_literals() -> None:
    """So a type checker refuses in a script what from_mapping refuses in a parameter file."""
    kinds = get_type_hints(Settings)
    rows = {row.name: row for row in Settings.table() if row.choices}
    assert len(rows) >= 12
    for name, row in rows.items():
        if name != "runtime":  # other packages bring runtimes
            assert get_args(kinds[name]) == row.choices, name
    assert rows["task"].choices == ("extract", "track", "match", "localize")

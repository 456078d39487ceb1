"""Every bound is written once: what the settings take, an engine can be made of, and no more."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from gps_denied_inference.errors import InvalidParameterError
from gps_denied_inference.models import zoo
from gps_denied_inference.models.specialise import specialised_graph
from gps_denied_inference.runtimes.checks import check_config
from gps_denied_inference.runtimes.contract import BuildConfig
from gps_denied_inference.settings import Settings
from gps_denied_inference.thermal.policy import PolicyConfig

PACKAGE = Path(__file__).resolve().parents[2] / "gps_denied_inference"
ROWS = {row.name: row for row in Settings.table()}
FIELDS = {
    "image_width": "width",
    "image_height": "height",
    "max_keypoints": "max_keypoints",
    "detection_threshold": "detection_threshold",
    "warmup_iterations": "warmup_iterations",
    "threads": "threads",
}
"""Settings and the fields of BuildConfig that they become."""


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("end", ["minimum", "maximum"])
def test_settings_and_engines_have_the_same_bounds(name, end):
    row = ROWS[name]
    kind = type(row.default)
    inside = kind(getattr(row, end))
    step = 32 if name.startswith("image") else kind(1)
    outside = inside + (step if end == "maximum" else -step)
    Settings.from_mapping({name: inside})
    check_config(dataclasses.replace(BuildConfig(), **{FIELDS[name]: inside}))
    with pytest.raises(InvalidParameterError, match=name):
        Settings.from_mapping({name: outside})
    if (name, end) == ("warmup_iterations", "minimum"):
        return  # an engine may be made without warm-up, as tests do
    for refuse in (check_config, lambda c: specialised_graph(zoo.resolve("xfeat"), c)):
        with pytest.raises(InvalidParameterError, match=FIELDS[name]):
            refuse(dataclasses.replace(BuildConfig(), **{FIELDS[name]: outside}))


@pytest.mark.parametrize("device", ["cuda:1234", "cuda:²", "cuda:", "gpu", "cuda:0 "])
def test_a_device_that_no_runtime_takes_is_no_setting(device):
    with pytest.raises(InvalidParameterError, match="'auto', 'cpu', 'cuda' or 'cuda:N'"):
        Settings.from_mapping({"device": device})


def test_no_bound_of_an_engine_is_written_twice():
    """The numbers stand in one module; documents and this test's own text are made from it."""
    numbers = re.compile(r"(?<![\w.])(3840|8192)(?![\w.])")
    found = {
        str(file.relative_to(PACKAGE))
        for file in sorted(PACKAGE.rglob("*.py"))
        if numbers.search(file.read_text())
    }
    assert found == {"runtimes/specs.py"}


@pytest.mark.parametrize("name", [n for n, row in ROWS.items() if "0 = n" in row.description])
def test_what_zero_means_holds(name):
    """Where a description says that 0 means none, it can be given; conditions are named with it."""
    row = ROWS[name]
    zero = type(row.default)(0)
    cooler = re.search(r"0 = none, where (.*)", row.description)
    values = {name: zero}
    if cooler:
        with pytest.raises(InvalidParameterError, match=name):
            thermal_policy(values)
        levels = ["warm"] if name == "thermal_throttling_rate" else ["warm", "throttling"]
        values |= {f"thermal_{level}_rate": 0.0 for level in levels}
    thermal_policy(values)


def thermal_policy(values):
    settings = Settings.from_mapping(values)
    return PolicyConfig(
        dwell=settings.thermal_dwell,
        warm_rate=settings.thermal_warm_rate,
        throttling_rate=settings.thermal_throttling_rate,
        critical_rate=settings.thermal_critical_rate,
    )
